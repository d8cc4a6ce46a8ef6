SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE FUNCTION public.alias_events_approved() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF (SELECT count(DISTINCT a.actor) FROM approvals a WHERE a.name = NEW.name AND a.alias = NEW.alias AND a.action = 'approve' AND a.act = CASE WHEN NEW.version_id IS NULL THEN 'demote' ELSE 'promote' END AND a.version_id = coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1)) AND a.revision = coalesce((SELECT max(coalesce(l.revision, e.revision)) FROM alias_events e LEFT JOIN alias_events l ON l.name = e.name AND l.alias = e.alias AND l.revision = e.revision + 1 WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.version_id = coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1))), 0) AND NOT (a.evaluation_id IS DISTINCT FROM (SELECT max(v.id) FROM evaluations v WHERE v.version_id = coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1)))) AND NOT EXISTS (SELECT 1 FROM approvals w WHERE w.digest = a.digest AND w.actor = a.actor AND w.id > a.id)) < coalesce((SELECT p.required FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 0) THEN RAISE EXCEPTION 'alias_events: the alias is protected, and approvals are missing'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.alias_events_demotions() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF (NEW.version_id IS NULL) <> (NEW.action = 'demote') THEN RAISE EXCEPTION 'alias_events: a demotion, and nothing else, points at nothing'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.alias_events_not_retired() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF coalesce((SELECT action FROM version_events WHERE version_id = NEW.version_id ORDER BY id DESC LIMIT 1), 'restore') = 'retire' OR (NEW.action = 'promote' AND (SELECT action FROM version_events WHERE version_id = NEW.version_id ORDER BY id DESC LIMIT 1) = 'deprecate') THEN RAISE EXCEPTION 'alias_events: the version is retired or deprecated'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.alias_events_one_chain() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF NEW.revision IS DISTINCT FROM 1 + (SELECT coalesce(max(revision), 0) FROM alias_events WHERE name = NEW.name AND alias = NEW.alias) THEN RAISE EXCEPTION 'alias_events: revision is not the next one'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.alias_events_own_versions() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF NEW.version_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM versions WHERE id = NEW.version_id AND name = NEW.name) THEN RAISE EXCEPTION 'alias_events: the version is not one of this model'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.approvals_own_rows() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF (NEW.version_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM versions WHERE id = NEW.version_id AND name = NEW.name)) OR (NEW.evaluation_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM evaluations WHERE id = NEW.evaluation_id AND version_id = NEW.version_id)) THEN RAISE EXCEPTION 'approvals: the version is not one of this model, or the evaluation not its own'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.approvals_steps() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF coalesce((SELECT action FROM approvals WHERE digest = NEW.digest AND actor = NEW.actor ORDER BY id DESC LIMIT 1), 'withdraw') = NEW.action THEN RAISE EXCEPTION 'approvals: it stands already, or there is none to withdraw'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.audit_one_chain() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF NEW.sequence IS DISTINCT FROM 1 + (SELECT coalesce(max(sequence), 0) FROM audit) OR NEW.previous_hash IS DISTINCT FROM coalesce((SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1), '0000000000000000000000000000000000000000000000000000000000000000') THEN RAISE EXCEPTION 'audit: the row does not continue the chain'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.protections_lifted() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF (NEW.required < coalesce((SELECT p.required FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 0) OR (NEW.required > 0 AND NEW.self_approval > coalesce((SELECT p.self_approval FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 1))) AND (SELECT count(DISTINCT a.actor) FROM approvals a WHERE a.name = NEW.name AND a.alias = NEW.alias AND a.action = 'approve' AND a.act = 'unprotect' AND a.revision = (SELECT p.id FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1) AND NOT EXISTS (SELECT 1 FROM approvals w WHERE w.digest = a.digest AND w.actor = a.actor AND w.id > a.id)) < coalesce((SELECT p.required FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 0) THEN RAISE EXCEPTION 'protections: approvals are missing to weaken this one'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION '% is insert-only', TG_TABLE_NAME; END $$;
CREATE FUNCTION public.version_events_held() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF NEW.action = 'retire' AND (EXISTS (SELECT 1 FROM alias_events WHERE version_id = NEW.version_id) OR EXISTS (SELECT 1 FROM version_parents p WHERE p.parent_id = NEW.version_id AND coalesce((SELECT action FROM version_events WHERE version_id = p.child_id ORDER BY id DESC LIMIT 1), 'restore') <> 'retire')) THEN RAISE EXCEPTION 'version_events: an alias or a version that is not retired needs it'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.version_events_parents() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF NEW.action = 'restore' AND EXISTS (SELECT 1 FROM version_parents p WHERE p.child_id = NEW.version_id AND (SELECT action FROM version_events WHERE version_id = p.parent_id ORDER BY id DESC LIMIT 1) = 'retire') THEN RAISE EXCEPTION 'version_events: a parent is retired'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.version_events_steps() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF (NEW.action = 'deprecate' AND coalesce((SELECT action FROM version_events WHERE version_id = NEW.version_id ORDER BY id DESC LIMIT 1), 'restore') <> 'restore') OR (NEW.action <> 'deprecate' AND coalesce((SELECT action FROM version_events WHERE version_id = NEW.version_id ORDER BY id DESC LIMIT 1), 'restore') = NEW.action) THEN RAISE EXCEPTION 'version_events: the version is in another state'; END IF; RETURN NEW; END $$;
CREATE FUNCTION public.version_parents_not_retired() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$ BEGIN IF (SELECT action FROM version_events WHERE version_id = NEW.parent_id ORDER BY id DESC LIMIT 1) = 'retire' THEN RAISE EXCEPTION 'version_parents: the parent is retired'; END IF; RETURN NEW; END $$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.alias_events (
    id integer NOT NULL,
    name character varying(128) NOT NULL COLLATE pg_catalog."C",
    alias character varying(64) NOT NULL COLLATE pg_catalog."C",
    revision integer NOT NULL,
    version_id integer,
    action character varying(16) NOT NULL COLLATE pg_catalog."C",
    actor character varying(128) NOT NULL COLLATE pg_catalog."C",
    reason text,
    evaluation_id integer,
    gate text,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C"
);
CREATE SEQUENCE public.alias_events_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.alias_events_id_seq OWNED BY public.alias_events.id;
CREATE TABLE public.approvals (
    id integer NOT NULL,
    name character varying(128) NOT NULL COLLATE pg_catalog."C",
    alias character varying(64) NOT NULL COLLATE pg_catalog."C",
    act character varying(16) NOT NULL COLLATE pg_catalog."C",
    version_id integer,
    evaluation_id integer,
    revision integer NOT NULL,
    digest character varying(64) NOT NULL COLLATE pg_catalog."C",
    matter text NOT NULL,
    action character varying(16) NOT NULL COLLATE pg_catalog."C",
    actor character varying(128) NOT NULL COLLATE pg_catalog."C",
    reason text,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT ck_approvals_act CHECK (((act)::text = ANY ((ARRAY['promote'::character varying, 'demote'::character varying, 'unprotect'::character varying])::text[]))),
    CONSTRAINT ck_approvals_action CHECK (((action)::text = ANY ((ARRAY['approve'::character varying, 'withdraw'::character varying])::text[]))),
    CONSTRAINT ck_approvals_version CHECK ((((act)::text = 'unprotect'::text) = (version_id IS NULL)))
);
CREATE SEQUENCE public.approvals_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.approvals_id_seq OWNED BY public.approvals.id;
CREATE TABLE public.audit (
    sequence integer NOT NULL,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C",
    actor character varying(128) NOT NULL COLLATE pg_catalog."C",
    action character varying(16) NOT NULL COLLATE pg_catalog."C",
    subject character varying(256) NOT NULL COLLATE pg_catalog."C",
    payload text NOT NULL,
    previous_hash character varying(64) NOT NULL COLLATE pg_catalog."C",
    hash character varying(64) NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.evaluations (
    id integer NOT NULL,
    version_id integer NOT NULL,
    digest character varying(64) NOT NULL COLLATE pg_catalog."C",
    report text NOT NULL,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C"
);
CREATE SEQUENCE public.evaluations_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.evaluations_id_seq OWNED BY public.evaluations.id;
CREATE TABLE public.identity (
    id integer NOT NULL,
    registry character varying(32) NOT NULL COLLATE pg_catalog."C",
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT ck_identity_one_row CHECK ((id = 1))
);
CREATE TABLE public.outbox (
    id integer NOT NULL,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C",
    topic character varying(64) NOT NULL COLLATE pg_catalog."C",
    payload text NOT NULL
);
CREATE SEQUENCE public.outbox_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.outbox_id_seq OWNED BY public.outbox.id;
CREATE TABLE public.protections (
    id integer NOT NULL,
    name character varying(128) NOT NULL COLLATE pg_catalog."C",
    alias character varying(64) NOT NULL COLLATE pg_catalog."C",
    required integer NOT NULL,
    self_approval integer NOT NULL,
    actor character varying(128) NOT NULL COLLATE pg_catalog."C",
    reason text NOT NULL,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT ck_protections_required CHECK ((required >= 0)),
    CONSTRAINT ck_protections_self_approval CHECK ((self_approval = ANY (ARRAY[0, 1])))
);
CREATE SEQUENCE public.protections_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.protections_id_seq OWNED BY public.protections.id;
CREATE TABLE public.runs (
    id integer NOT NULL,
    name character varying(128) NOT NULL COLLATE pg_catalog."C",
    sweep character varying(64) NOT NULL COLLATE pg_catalog."C",
    number integer NOT NULL,
    digest character varying(64) NOT NULL COLLATE pg_catalog."C",
    base_fingerprint character varying(64) NOT NULL COLLATE pg_catalog."C",
    content_key character varying(256) COLLATE pg_catalog."C",
    document text NOT NULL,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C"
);
CREATE SEQUENCE public.runs_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.runs_id_seq OWNED BY public.runs.id;
CREATE TABLE public.version_events (
    id integer NOT NULL,
    version_id integer NOT NULL,
    action character varying(16) NOT NULL COLLATE pg_catalog."C",
    actor character varying(128) NOT NULL COLLATE pg_catalog."C",
    reason text NOT NULL,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT ck_version_events_action CHECK (((action)::text = ANY ((ARRAY['deprecate'::character varying, 'restore'::character varying, 'retire'::character varying])::text[])))
);
CREATE SEQUENCE public.version_events_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.version_events_id_seq OWNED BY public.version_events.id;
CREATE TABLE public.version_parents (
    id integer NOT NULL,
    child_id integer NOT NULL,
    parent_id integer NOT NULL,
    role character varying(32) NOT NULL COLLATE pg_catalog."C",
    weight double precision,
    CONSTRAINT ck_version_parents_older CHECK ((parent_id < child_id))
);
CREATE SEQUENCE public.version_parents_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.version_parents_id_seq OWNED BY public.version_parents.id;
CREATE TABLE public.versions (
    id integer NOT NULL,
    name character varying(128) NOT NULL COLLATE pg_catalog."C",
    number integer NOT NULL,
    digest character varying(64) NOT NULL COLLATE pg_catalog."C",
    kind character varying(16) NOT NULL COLLATE pg_catalog."C",
    base_fingerprint character varying(64) COLLATE pg_catalog."C",
    content_key character varying(256) COLLATE pg_catalog."C",
    manifest text NOT NULL,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT ck_versions_number CHECK ((number >= 1))
);
CREATE SEQUENCE public.versions_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.versions_id_seq OWNED BY public.versions.id;
ALTER TABLE ONLY public.alias_events ALTER COLUMN id SET DEFAULT nextval('public.alias_events_id_seq'::regclass);
ALTER TABLE ONLY public.approvals ALTER COLUMN id SET DEFAULT nextval('public.approvals_id_seq'::regclass);
ALTER TABLE ONLY public.evaluations ALTER COLUMN id SET DEFAULT nextval('public.evaluations_id_seq'::regclass);
ALTER TABLE ONLY public.outbox ALTER COLUMN id SET DEFAULT nextval('public.outbox_id_seq'::regclass);
ALTER TABLE ONLY public.protections ALTER COLUMN id SET DEFAULT nextval('public.protections_id_seq'::regclass);
ALTER TABLE ONLY public.runs ALTER COLUMN id SET DEFAULT nextval('public.runs_id_seq'::regclass);
ALTER TABLE ONLY public.version_events ALTER COLUMN id SET DEFAULT nextval('public.version_events_id_seq'::regclass);
ALTER TABLE ONLY public.version_parents ALTER COLUMN id SET DEFAULT nextval('public.version_parents_id_seq'::regclass);
ALTER TABLE ONLY public.versions ALTER COLUMN id SET DEFAULT nextval('public.versions_id_seq'::regclass);
INSERT INTO public.alembic_version VALUES ('0005');
INSERT INTO public.alias_events VALUES (1, 'text2sql', 'champion', 1, 2, 'promote', 'ada', 'first', 1, '{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}', '2026-11-27T23:28:42.198531Z');
INSERT INTO public.alias_events VALUES (2, 'text2sql', 'champion', 2, 3, 'promote', 'ada', 'better – 更好', 2, '{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}', '2026-11-27T23:28:42.274030Z');
INSERT INTO public.alias_events VALUES (3, 'text2sql', 'candidate', 1, 3, 'promote', 'bob', NULL, 2, '{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}', '2026-11-27T23:28:42.339777Z');
INSERT INTO public.alias_events VALUES (4, 'text2sql', 'champion', 3, 2, 'rollback', 'bob', 'slow', NULL, NULL, '2026-11-27T23:28:42.404037Z');
INSERT INTO public.alias_events VALUES (5, 'text2sql', 'shadow', 1, 3, 'promote', 'ada', NULL, 2, '{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}', '2026-11-27T23:28:42.575026Z');
INSERT INTO public.alias_events VALUES (6, 'text2sql', 'shadow', 2, NULL, 'demote', 'bob', 'never used – 没用', NULL, NULL, '2026-11-27T23:28:42.634740Z');
INSERT INTO public.approvals VALUES (1, 'text2sql', 'released', 'promote', 3, 2, 0, '4376777412728a4ee4bc238e03d8b0037c7a2519ea6c63fb51c6f6985424d7ae', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","evaluation_id":2,"name":"text2sql","policy":"0283fa87dc1e1a4efc577ea1f2ae439ef2515731d611883f218183e3ed562f56","revision":0}', 'approve', 'bob', 'looked at it – 好', '2026-11-27T23:28:42.865807Z');
INSERT INTO public.approvals VALUES (2, 'text2sql', 'released', 'promote', 3, 2, 0, '4376777412728a4ee4bc238e03d8b0037c7a2519ea6c63fb51c6f6985424d7ae', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","evaluation_id":2,"name":"text2sql","policy":"0283fa87dc1e1a4efc577ea1f2ae439ef2515731d611883f218183e3ed562f56","revision":0}', 'approve', 'eve', NULL, '2026-11-27T23:28:42.913997Z');
INSERT INTO public.approvals VALUES (3, 'text2sql', 'released', 'promote', 3, 2, 0, '4376777412728a4ee4bc238e03d8b0037c7a2519ea6c63fb51c6f6985424d7ae', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","evaluation_id":2,"name":"text2sql","policy":"0283fa87dc1e1a4efc577ea1f2ae439ef2515731d611883f218183e3ed562f56","revision":0}', 'withdraw', 'eve', 'not yet', '2026-11-27T23:28:42.952389Z');
INSERT INTO public.audit VALUES (1, '2026-11-27T23:28:41.750405Z', 'ada', 'register', 'tiny:v1', '{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","kind":"base","name":"tiny","version":1}', '0000000000000000000000000000000000000000000000000000000000000000', 'bcabaa02da5d795593107804e98b4bbde864d086fefc8251d4e2d11abf8a6842');
INSERT INTO public.audit VALUES (2, '2026-11-27T23:28:41.845903Z', 'ada', 'register', 'text2sql:v1', '{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","kind":"adapter","name":"text2sql","version":1}', 'bcabaa02da5d795593107804e98b4bbde864d086fefc8251d4e2d11abf8a6842', '723ea251b6007e3c916968e360b271d30ca6d829fe23915fdbb8412c26702277');
INSERT INTO public.audit VALUES (3, '2026-11-27T23:28:41.899068Z', 'ada', 'evaluate', 'text2sql:v1', '{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb"}', '723ea251b6007e3c916968e360b271d30ca6d829fe23915fdbb8412c26702277', '24feca40ca1e2384f83f37d2326b58fea8f184d41f8fd74c019cb43072a65cec');
INSERT INTO public.audit VALUES (4, '2026-11-27T23:28:41.973882Z', 'ada', 'register', 'text2sql:v2', '{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","kind":"adapter","name":"text2sql","version":2}', '24feca40ca1e2384f83f37d2326b58fea8f184d41f8fd74c019cb43072a65cec', 'bf086d840d3eb91792a05832f0dc25449e121bfb185f56bc5709c44ddf3ba6cb');
INSERT INTO public.audit VALUES (5, '2026-11-27T23:28:42.026065Z', 'ada', 'evaluate', 'text2sql:v2', '{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015"}', 'bf086d840d3eb91792a05832f0dc25449e121bfb185f56bc5709c44ddf3ba6cb', '3768520d3faa4fdcd178f00655aeb11f2ac41736aafe6b37dcb25d45a008da68');
INSERT INTO public.audit VALUES (6, '2026-11-27T23:28:42.098941Z', 'ada', 'register', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","kind":"adapter","name":"text2sql","version":3}', '3768520d3faa4fdcd178f00655aeb11f2ac41736aafe6b37dcb25d45a008da68', 'cee8b20451c6a75b9e8bc653d6c346382e1e0861ebc24cd15f86a5cd05102062');
INSERT INTO public.audit VALUES (7, '2026-11-27T23:28:42.139158Z', 'ada', 'evaluate', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa"}', 'cee8b20451c6a75b9e8bc653d6c346382e1e0861ebc24cd15f86a5cd05102062', '7a8ed209a0175cb7ca0e352d3803636909591e95b46c790cabcdc9fb50a2b212');
INSERT INTO public.audit VALUES (8, '2026-11-27T23:28:42.198531Z', 'ada', 'promote', 'text2sql@champion', '{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":"first","revision":1,"version":1}', '7a8ed209a0175cb7ca0e352d3803636909591e95b46c790cabcdc9fb50a2b212', '12272bafb5f75282f0530c76e3a4e9ba7c671e8e0a27db08ee0976eec1a7c25d');
INSERT INTO public.audit VALUES (9, '2026-11-27T23:28:42.274030Z', 'ada', 'promote', 'text2sql@champion', '{"alias":"champion","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reason":"better – 更好","revision":2,"version":2}', '12272bafb5f75282f0530c76e3a4e9ba7c671e8e0a27db08ee0976eec1a7c25d', 'cd5c3116bfa0fb886fffea0c1a8a5b0451c5f852d27e8f1ae1c6687c7fa6ddfa');
INSERT INTO public.audit VALUES (10, '2026-11-27T23:28:42.339777Z', 'bob', 'promote', 'text2sql@candidate', '{"alias":"candidate","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}', 'cd5c3116bfa0fb886fffea0c1a8a5b0451c5f852d27e8f1ae1c6687c7fa6ddfa', '599456db6fe5bbc76549b79662f813cfc16f1c82bd8aef85c4aab22f5bcdce3e');
INSERT INTO public.audit VALUES (11, '2026-11-27T23:28:42.404037Z', 'bob', 'rollback', 'text2sql@champion', '{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"slow","revision":3,"version":1}', '599456db6fe5bbc76549b79662f813cfc16f1c82bd8aef85c4aab22f5bcdce3e', '02db0fcd0202cf0330b4f64a39d375a01ab8f4476e22903a23e7d3fa511ccbf5');
INSERT INTO public.audit VALUES (12, '2026-11-27T23:28:42.467989Z', 'eve', 'refuse', 'text2sql:v3', '{"alias":"champion","digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":false,"reason":"the task gained 0.0 points, the policy asks for 10.0 points","value":0.0},{"bound":0.0,"name":"task_interval","passed":false,"reason":"the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","value":-0.05},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":false,"reason":"the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points","value":0.1}],"passed":false,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":["the task gained 0.0 points, the policy asks for 10.0 points","the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points"]},"previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reasons":["the task gained 0.0 points, the policy asks for 10.0 points","the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points"]}', '02db0fcd0202cf0330b4f64a39d375a01ab8f4476e22903a23e7d3fa511ccbf5', 'a202bdb2a1a0a28ef03c4c35f97f1c0eaa0ce86ae7e155fedc05d798c0b4dc44');
INSERT INTO public.audit VALUES (13, '2026-11-27T23:28:42.501770Z', 'ada', 'run', 'text2sql sweep sweep trial 0', '{"digest":"94dc74b3ea8d3422000ae0d60a6d5c0a9a57018a89123d799adea1c6f4844ce7","name":"text2sql","number":0,"sweep":"sweep"}', 'a202bdb2a1a0a28ef03c4c35f97f1c0eaa0ce86ae7e155fedc05d798c0b4dc44', '14104636e379dbe9122a812664400f800e28506dab7844a8e7b964f8ac4c6fe8');
INSERT INTO public.audit VALUES (14, '2026-11-27T23:28:42.575026Z', 'ada', 'promote', 'text2sql@shadow', '{"alias":"shadow","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}', '14104636e379dbe9122a812664400f800e28506dab7844a8e7b964f8ac4c6fe8', '19879ee2e25e5fc8d8f60e9f3f41b15b376086bccdc9f3dad32ea07c96b66f78');
INSERT INTO public.audit VALUES (15, '2026-11-27T23:28:42.634740Z', 'bob', 'demote', 'text2sql@shadow', '{"alias":"shadow","digest":null,"evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"never used – 没用","revision":2,"version":null}', '19879ee2e25e5fc8d8f60e9f3f41b15b376086bccdc9f3dad32ea07c96b66f78', '07d97ec0040bf13803b26c4ed9dc114de1dfcdc88ad34c1dc044880a0c189fd1');
INSERT INTO public.audit VALUES (16, '2026-11-27T23:28:42.686967Z', 'bob', 'deprecate', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"loses – 差","version":3}', '07d97ec0040bf13803b26c4ed9dc114de1dfcdc88ad34c1dc044880a0c189fd1', '2af9c18c0211dfa782e705135ea38675a0090c1e0af6df36ee81bee6a06eeac9');
INSERT INTO public.audit VALUES (17, '2026-11-27T23:28:42.732082Z', 'ada', 'restore', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"a second look","version":3}', '2af9c18c0211dfa782e705135ea38675a0090c1e0af6df36ee81bee6a06eeac9', '2c05341ac66b3a2dc111110235e5423c2adba679cbf812c137a6c64681f4a9ba');
INSERT INTO public.audit VALUES (18, '2026-11-27T23:28:42.770540Z', 'bob', 'retire', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"no use","version":3}', '2c05341ac66b3a2dc111110235e5423c2adba679cbf812c137a6c64681f4a9ba', '6d3316db5fbb11eeb8fb5ede622866fe31c1e864dd525b88fe473f9e871911e7');
INSERT INTO public.audit VALUES (19, '2026-11-27T23:28:42.818807Z', 'ada', 'protect', 'text2sql@released', '{"alias":"released","approvals":[],"name":"text2sql","reason":"customers – 客户","required":2,"self_approval":false}', '6d3316db5fbb11eeb8fb5ede622866fe31c1e864dd525b88fe473f9e871911e7', 'a34cd763f7a850e5171f3c3fd979e5e2f02ff5a0f029e9ee913a983b0f4134e8');
INSERT INTO public.audit VALUES (20, '2026-11-27T23:28:42.865807Z', 'bob', 'approve', 'text2sql@released', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"4376777412728a4ee4bc238e03d8b0037c7a2519ea6c63fb51c6f6985424d7ae","name":"text2sql","reason":"looked at it – 好","version":2}', 'a34cd763f7a850e5171f3c3fd979e5e2f02ff5a0f029e9ee913a983b0f4134e8', 'fe36e9d1d86592fcb93e53ed1b578ba3d261b4535a25cacb1e4db80bca1b68c1');
INSERT INTO public.audit VALUES (21, '2026-11-27T23:28:42.913997Z', 'eve', 'approve', 'text2sql@released', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"4376777412728a4ee4bc238e03d8b0037c7a2519ea6c63fb51c6f6985424d7ae","name":"text2sql","reason":null,"version":2}', 'fe36e9d1d86592fcb93e53ed1b578ba3d261b4535a25cacb1e4db80bca1b68c1', '6df80ebd2d072e30cef920036fa602d3d010f1b9c659bc0e86e58cf90375557d');
INSERT INTO public.audit VALUES (22, '2026-11-27T23:28:42.952389Z', 'eve', 'withdraw', 'text2sql@released', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"4376777412728a4ee4bc238e03d8b0037c7a2519ea6c63fb51c6f6985424d7ae","name":"text2sql","reason":"not yet","version":2}', '6df80ebd2d072e30cef920036fa602d3d010f1b9c659bc0e86e58cf90375557d', '90f767274e316a8490fd205ea0ef0c84b710e42ff3d2aedeb9a321c5a301ef3f');
INSERT INTO public.evaluations VALUES (1, 2, '91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb', '{"task":{"delta":0.2,"high":0.30000000000000004,"low":0.15000000000000002,"metric":"exact_match","n":128,"tuned":0.30000000000000004},"tax":[{"low":-0.01,"suite":"grammar"}]}', '2026-11-27T23:28:41.899068Z');
INSERT INTO public.evaluations VALUES (2, 3, '5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015', '{"task":{"delta":0.3,"high":0.4,"low":0.25,"metric":"exact_match","n":128,"tuned":0.4},"tax":[{"low":-0.01,"suite":"grammar"}]}', '2026-11-27T23:28:42.026065Z');
INSERT INTO public.evaluations VALUES (3, 4, '18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa', '{"task":{"delta":0.0,"high":0.1,"low":-0.05,"metric":"exact_match","n":128,"tuned":0.1},"tax":[{"low":-0.01,"suite":"grammar"}]}', '2026-11-27T23:28:42.139158Z');
INSERT INTO public.identity VALUES (1, '06cb11b4201266c3a6de5832f06ce4a1', '2026-11-27T23:28:41.594875Z');
INSERT INTO public.outbox VALUES (1, '2026-11-27T23:28:41.750405Z', 'version.registered', '{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","kind":"base","name":"tiny","version":1}');
INSERT INTO public.outbox VALUES (2, '2026-11-27T23:28:41.845903Z', 'version.registered', '{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","kind":"adapter","name":"text2sql","version":1}');
INSERT INTO public.outbox VALUES (3, '2026-11-27T23:28:41.899068Z', 'version.evaluated', '{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","name":"text2sql","version":1}');
INSERT INTO public.outbox VALUES (4, '2026-11-27T23:28:41.973882Z', 'version.registered', '{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","kind":"adapter","name":"text2sql","version":2}');
INSERT INTO public.outbox VALUES (5, '2026-11-27T23:28:42.026065Z', 'version.evaluated', '{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","name":"text2sql","version":2}');
INSERT INTO public.outbox VALUES (6, '2026-11-27T23:28:42.098941Z', 'version.registered', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","kind":"adapter","name":"text2sql","version":3}');
INSERT INTO public.outbox VALUES (7, '2026-11-27T23:28:42.139158Z', 'version.evaluated', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa","name":"text2sql","version":3}');
INSERT INTO public.outbox VALUES (8, '2026-11-27T23:28:42.198531Z', 'alias.promote', '{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":"first","revision":1,"version":1}');
INSERT INTO public.outbox VALUES (9, '2026-11-27T23:28:42.274030Z', 'alias.promote', '{"alias":"champion","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reason":"better – 更好","revision":2,"version":2}');
INSERT INTO public.outbox VALUES (10, '2026-11-27T23:28:42.339777Z', 'alias.promote', '{"alias":"candidate","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}');
INSERT INTO public.outbox VALUES (11, '2026-11-27T23:28:42.404037Z', 'alias.rollback', '{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"slow","revision":3,"version":1}');
INSERT INTO public.outbox VALUES (12, '2026-11-27T23:28:42.575026Z', 'alias.promote', '{"alias":"shadow","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}');
INSERT INTO public.outbox VALUES (13, '2026-11-27T23:28:42.634740Z', 'alias.demote', '{"alias":"shadow","digest":null,"evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"never used – 没用","revision":2,"version":null}');
INSERT INTO public.outbox VALUES (14, '2026-11-27T23:28:42.686967Z', 'version.deprecate', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"loses – 差","version":3}');
INSERT INTO public.outbox VALUES (15, '2026-11-27T23:28:42.732082Z', 'version.restore', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"a second look","version":3}');
INSERT INTO public.outbox VALUES (16, '2026-11-27T23:28:42.770540Z', 'version.retire', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"no use","version":3}');
INSERT INTO public.outbox VALUES (17, '2026-11-27T23:28:42.818807Z', 'alias.protect', '{"alias":"released","approvals":[],"name":"text2sql","reason":"customers – 客户","required":2,"self_approval":false}');
INSERT INTO public.outbox VALUES (18, '2026-11-27T23:28:42.865807Z', 'alias.approve', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"4376777412728a4ee4bc238e03d8b0037c7a2519ea6c63fb51c6f6985424d7ae","name":"text2sql","reason":"looked at it – 好","version":2}');
INSERT INTO public.outbox VALUES (19, '2026-11-27T23:28:42.913997Z', 'alias.approve', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"4376777412728a4ee4bc238e03d8b0037c7a2519ea6c63fb51c6f6985424d7ae","name":"text2sql","reason":null,"version":2}');
INSERT INTO public.outbox VALUES (20, '2026-11-27T23:28:42.952389Z', 'alias.withdraw', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"4376777412728a4ee4bc238e03d8b0037c7a2519ea6c63fb51c6f6985424d7ae","name":"text2sql","reason":"not yet","version":2}');
INSERT INTO public.protections VALUES (1, 'text2sql', 'released', 2, 0, 'ada', 'customers – 客户', '2026-11-27T23:28:42.818807Z');
INSERT INTO public.runs VALUES (1, 'text2sql', 'sweep', 0, '94dc74b3ea8d3422000ae0d60a6d5c0a9a57018a89123d799adea1c6f4844ce7', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', 'key-1', '{"data":{},"name":"text2sql","number":0,"summary":"rank 4","sweep":"sweep"}', '2026-11-27T23:28:42.501770Z');
INSERT INTO public.version_events VALUES (1, 4, 'deprecate', 'bob', 'loses – 差', '2026-11-27T23:28:42.686967Z');
INSERT INTO public.version_events VALUES (2, 4, 'restore', 'ada', 'a second look', '2026-11-27T23:28:42.732082Z');
INSERT INTO public.version_events VALUES (3, 4, 'retire', 'bob', 'no use', '2026-11-27T23:28:42.770540Z');
INSERT INTO public.version_parents VALUES (1, 2, 1, 'base', NULL);
INSERT INTO public.version_parents VALUES (2, 3, 1, 'base', NULL);
INSERT INTO public.version_parents VALUES (3, 4, 1, 'base', NULL);
INSERT INTO public.versions VALUES (1, 'tiny', 1, 'a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6', 'base', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', NULL, '{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":null,"data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"faa207d55de7950deae1d714ba59b8721a35a7813420f6aebfbf0def2ecafd6c","size":16}},"flow_run_id":null,"format":1,"kind":"base","library_versions":{},"licence":null,"metadata":{},"parents":[],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}', '2026-11-27T23:28:41.750405Z');
INSERT INTO public.versions VALUES (2, 'text2sql', 1, 'e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a', 'adapter', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', 'key-1', '{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-1","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"af43165b6d4227c4e71ca1c9b18a9b8fe135b6f66c1208a975cd12b7134a979f","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}', '2026-11-27T23:28:41.845903Z');
INSERT INTO public.versions VALUES (3, 'text2sql', 2, 'e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36', 'adapter', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', 'key-2', '{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-2","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"ae004fa4bb811221134fa48305004b172c6f0148cb19f809e68f7006fee97ba7","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}', '2026-11-27T23:28:41.973882Z');
INSERT INTO public.versions VALUES (4, 'text2sql', 3, '4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398', 'adapter', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', 'key-3', '{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-3","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"0ad04ce2a9d6044907608e09fd5967562f8da728a3c2969a37a58f7602b59689","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}', '2026-11-27T23:28:42.098941Z');
SELECT pg_catalog.setval('public.alias_events_id_seq', 6, true);
SELECT pg_catalog.setval('public.approvals_id_seq', 3, true);
SELECT pg_catalog.setval('public.evaluations_id_seq', 3, true);
SELECT pg_catalog.setval('public.outbox_id_seq', 20, true);
SELECT pg_catalog.setval('public.protections_id_seq', 1, true);
SELECT pg_catalog.setval('public.runs_id_seq', 1, true);
SELECT pg_catalog.setval('public.version_events_id_seq', 3, true);
SELECT pg_catalog.setval('public.version_parents_id_seq', 3, true);
SELECT pg_catalog.setval('public.versions_id_seq', 4, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.alias_events
    ADD CONSTRAINT alias_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.approvals
    ADD CONSTRAINT approvals_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (sequence);
ALTER TABLE ONLY public.evaluations
    ADD CONSTRAINT evaluations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.identity
    ADD CONSTRAINT identity_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.protections
    ADD CONSTRAINT protections_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.alias_events
    ADD CONSTRAINT uq_alias_events_revision UNIQUE (name, alias, revision);
ALTER TABLE ONLY public.audit
    ADD CONSTRAINT uq_audit_hash UNIQUE (hash);
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT uq_runs_digest UNIQUE (digest);
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT uq_runs_number UNIQUE (name, sweep, number);
ALTER TABLE ONLY public.version_parents
    ADD CONSTRAINT uq_version_parents_edge UNIQUE (child_id, parent_id, role);
ALTER TABLE ONLY public.versions
    ADD CONSTRAINT uq_versions_content_key UNIQUE (name, content_key);
ALTER TABLE ONLY public.versions
    ADD CONSTRAINT uq_versions_digest UNIQUE (digest);
ALTER TABLE ONLY public.versions
    ADD CONSTRAINT uq_versions_number UNIQUE (name, number);
ALTER TABLE ONLY public.version_events
    ADD CONSTRAINT version_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.version_parents
    ADD CONSTRAINT version_parents_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (id);
CREATE INDEX ix_approvals_alias ON public.approvals USING btree (name, alias, id);
CREATE INDEX ix_approvals_digest ON public.approvals USING btree (digest, actor, id);
CREATE INDEX ix_evaluations_version ON public.evaluations USING btree (version_id, id);
CREATE INDEX ix_protections_alias ON public.protections USING btree (name, alias, id);
CREATE INDEX ix_runs_base_fingerprint ON public.runs USING btree (base_fingerprint);
CREATE INDEX ix_runs_content_key ON public.runs USING btree (name, content_key);
CREATE INDEX ix_version_events_version ON public.version_events USING btree (version_id, id);
CREATE INDEX ix_version_parents_parent ON public.version_parents USING btree (parent_id);
CREATE INDEX ix_versions_base_fingerprint ON public.versions USING btree (base_fingerprint);
CREATE TRIGGER alias_events_approved BEFORE INSERT ON public.alias_events FOR EACH ROW EXECUTE FUNCTION public.alias_events_approved();
ALTER TABLE public.alias_events ENABLE ALWAYS TRIGGER alias_events_approved;
CREATE TRIGGER alias_events_demotions BEFORE INSERT ON public.alias_events FOR EACH ROW EXECUTE FUNCTION public.alias_events_demotions();
ALTER TABLE public.alias_events ENABLE ALWAYS TRIGGER alias_events_demotions;
CREATE TRIGGER alias_events_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.alias_events FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.alias_events ENABLE ALWAYS TRIGGER alias_events_insert_only;
CREATE TRIGGER alias_events_not_retired BEFORE INSERT ON public.alias_events FOR EACH ROW EXECUTE FUNCTION public.alias_events_not_retired();
ALTER TABLE public.alias_events ENABLE ALWAYS TRIGGER alias_events_not_retired;
CREATE TRIGGER alias_events_one_chain BEFORE INSERT ON public.alias_events FOR EACH ROW EXECUTE FUNCTION public.alias_events_one_chain();
ALTER TABLE public.alias_events ENABLE ALWAYS TRIGGER alias_events_one_chain;
CREATE TRIGGER alias_events_own_versions BEFORE INSERT ON public.alias_events FOR EACH ROW EXECUTE FUNCTION public.alias_events_own_versions();
ALTER TABLE public.alias_events ENABLE ALWAYS TRIGGER alias_events_own_versions;
CREATE TRIGGER approvals_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.approvals FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.approvals ENABLE ALWAYS TRIGGER approvals_insert_only;
CREATE TRIGGER approvals_own_rows BEFORE INSERT ON public.approvals FOR EACH ROW EXECUTE FUNCTION public.approvals_own_rows();
ALTER TABLE public.approvals ENABLE ALWAYS TRIGGER approvals_own_rows;
CREATE TRIGGER approvals_steps BEFORE INSERT ON public.approvals FOR EACH ROW EXECUTE FUNCTION public.approvals_steps();
ALTER TABLE public.approvals ENABLE ALWAYS TRIGGER approvals_steps;
CREATE TRIGGER audit_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.audit ENABLE ALWAYS TRIGGER audit_insert_only;
CREATE TRIGGER audit_one_chain BEFORE INSERT ON public.audit FOR EACH ROW EXECUTE FUNCTION public.audit_one_chain();
ALTER TABLE public.audit ENABLE ALWAYS TRIGGER audit_one_chain;
CREATE TRIGGER evaluations_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.evaluations FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.evaluations ENABLE ALWAYS TRIGGER evaluations_insert_only;
CREATE TRIGGER identity_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.identity FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.identity ENABLE ALWAYS TRIGGER identity_insert_only;
CREATE TRIGGER outbox_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.outbox FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.outbox ENABLE ALWAYS TRIGGER outbox_insert_only;
CREATE TRIGGER protections_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.protections FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.protections ENABLE ALWAYS TRIGGER protections_insert_only;
CREATE TRIGGER protections_lifted BEFORE INSERT ON public.protections FOR EACH ROW EXECUTE FUNCTION public.protections_lifted();
ALTER TABLE public.protections ENABLE ALWAYS TRIGGER protections_lifted;
CREATE TRIGGER runs_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.runs FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.runs ENABLE ALWAYS TRIGGER runs_insert_only;
CREATE TRIGGER version_events_held BEFORE INSERT ON public.version_events FOR EACH ROW EXECUTE FUNCTION public.version_events_held();
ALTER TABLE public.version_events ENABLE ALWAYS TRIGGER version_events_held;
CREATE TRIGGER version_events_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.version_events FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.version_events ENABLE ALWAYS TRIGGER version_events_insert_only;
CREATE TRIGGER version_events_parents BEFORE INSERT ON public.version_events FOR EACH ROW EXECUTE FUNCTION public.version_events_parents();
ALTER TABLE public.version_events ENABLE ALWAYS TRIGGER version_events_parents;
CREATE TRIGGER version_events_steps BEFORE INSERT ON public.version_events FOR EACH ROW EXECUTE FUNCTION public.version_events_steps();
ALTER TABLE public.version_events ENABLE ALWAYS TRIGGER version_events_steps;
CREATE TRIGGER version_parents_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.version_parents FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.version_parents ENABLE ALWAYS TRIGGER version_parents_insert_only;
CREATE TRIGGER version_parents_not_retired BEFORE INSERT ON public.version_parents FOR EACH ROW EXECUTE FUNCTION public.version_parents_not_retired();
ALTER TABLE public.version_parents ENABLE ALWAYS TRIGGER version_parents_not_retired;
CREATE TRIGGER versions_insert_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.versions FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.versions ENABLE ALWAYS TRIGGER versions_insert_only;
ALTER TABLE ONLY public.alias_events
    ADD CONSTRAINT alias_events_evaluation_id_fkey FOREIGN KEY (evaluation_id) REFERENCES public.evaluations(id);
ALTER TABLE ONLY public.alias_events
    ADD CONSTRAINT alias_events_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.versions(id);
ALTER TABLE ONLY public.approvals
    ADD CONSTRAINT approvals_evaluation_id_fkey FOREIGN KEY (evaluation_id) REFERENCES public.evaluations(id);
ALTER TABLE ONLY public.approvals
    ADD CONSTRAINT approvals_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.versions(id);
ALTER TABLE ONLY public.evaluations
    ADD CONSTRAINT evaluations_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.versions(id);
ALTER TABLE ONLY public.version_events
    ADD CONSTRAINT version_events_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.versions(id);
ALTER TABLE ONLY public.version_parents
    ADD CONSTRAINT version_parents_child_id_fkey FOREIGN KEY (child_id) REFERENCES public.versions(id);
ALTER TABLE ONLY public.version_parents
    ADD CONSTRAINT version_parents_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES public.versions(id);
