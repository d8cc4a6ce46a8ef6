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
    AS $$ BEGIN IF (SELECT count(DISTINCT a.actor) FROM approvals a WHERE a.name = NEW.name AND a.alias = NEW.alias AND a.action = 'approve' AND a.act = CASE WHEN NEW.version_id IS NULL THEN 'demote' ELSE 'promote' END AND a.version_id = coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1)) AND a.revision = coalesce((SELECT max(coalesce(l.revision, e.revision)) FROM alias_events e LEFT JOIN alias_events l ON l.name = e.name AND l.alias = e.alias AND l.revision = e.revision + 1 WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.version_id = coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1))), 0) AND NOT (a.evaluation_id IS DISTINCT FROM (SELECT max(v.id) FROM evaluations v WHERE v.version_id = coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1)))) AND ((SELECT p.self_approval FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1) = 1 OR NOT EXISTS (SELECT 1 FROM audit r JOIN versions o ON r.action = 'register' AND r.subject = o.name || ':' || 'v' || o.number WHERE o.id = a.version_id AND r.actor = a.actor)) AND NOT EXISTS (SELECT 1 FROM approvals w WHERE w.digest = a.digest AND w.actor = a.actor AND w.id > a.id)) < coalesce((SELECT p.required FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 0) THEN RAISE EXCEPTION 'alias_events: the alias is protected, and approvals are missing'; END IF; RETURN NEW; END $$;
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
    AS $$ BEGIN IF (NEW.required < coalesce((SELECT p.required FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 0) OR (NEW.required > 0 AND NEW.self_approval > coalesce((SELECT p.self_approval FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 1))) AND (SELECT count(DISTINCT a.actor) FROM approvals a WHERE a.name = NEW.name AND a.alias = NEW.alias AND a.action = 'approve' AND a.act = 'unprotect' AND a.revision = (SELECT p.id FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1) AND a.required = NEW.required AND a.self_approval = NEW.self_approval AND NOT EXISTS (SELECT 1 FROM approvals w WHERE w.digest = a.digest AND w.actor = a.actor AND w.id > a.id)) < coalesce((SELECT p.required FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 0) THEN RAISE EXCEPTION 'protections: approvals are missing to weaken this one'; END IF; RETURN NEW; END $$;
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
    required integer,
    self_approval integer,
    digest character varying(64) NOT NULL COLLATE pg_catalog."C",
    matter text NOT NULL,
    action character varying(16) NOT NULL COLLATE pg_catalog."C",
    actor character varying(128) NOT NULL COLLATE pg_catalog."C",
    reason text,
    created_at character varying(32) NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT ck_approvals_act CHECK (((act)::text = ANY ((ARRAY['promote'::character varying, 'demote'::character varying, 'unprotect'::character varying])::text[]))),
    CONSTRAINT ck_approvals_action CHECK (((action)::text = ANY ((ARRAY['approve'::character varying, 'withdraw'::character varying])::text[]))),
    CONSTRAINT ck_approvals_version CHECK ((((act)::text = 'unprotect'::text) = (version_id IS NULL))),
    CONSTRAINT ck_approvals_weaker CHECK (((((act)::text = 'unprotect'::text) = (required IS NOT NULL)) AND (((act)::text = 'unprotect'::text) = (self_approval IS NOT NULL))))
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
INSERT INTO public.alias_events VALUES (1, 'text2sql', 'champion', 1, 2, 'promote', 'ada', 'first', 1, '{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}', '2026-11-27T23:34:11.547917Z');
INSERT INTO public.alias_events VALUES (2, 'text2sql', 'champion', 2, 3, 'promote', 'ada', 'better – 更好', 2, '{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}', '2026-11-27T23:34:11.631103Z');
INSERT INTO public.alias_events VALUES (3, 'text2sql', 'candidate', 1, 3, 'promote', 'bob', NULL, 2, '{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}', '2026-11-27T23:34:11.677446Z');
INSERT INTO public.alias_events VALUES (4, 'text2sql', 'champion', 3, 2, 'rollback', 'bob', 'slow', NULL, NULL, '2026-11-27T23:34:11.728279Z');
INSERT INTO public.alias_events VALUES (5, 'text2sql', 'shadow', 1, 3, 'promote', 'ada', NULL, 2, '{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}', '2026-11-27T23:34:11.831773Z');
INSERT INTO public.alias_events VALUES (6, 'text2sql', 'shadow', 2, NULL, 'demote', 'bob', 'never used – 没用', NULL, NULL, '2026-11-27T23:34:11.879460Z');
INSERT INTO public.approvals VALUES (1, 'text2sql', 'released', 'promote', 3, 2, 0, NULL, NULL, '6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","evaluation_id":2,"name":"text2sql","policy":"0283fa87dc1e1a4efc577ea1f2ae439ef2515731d611883f218183e3ed562f56","required":null,"revision":0,"self_approval":null}', 'approve', 'bob', 'looked at it – 好', '2026-11-27T23:34:12.070129Z');
INSERT INTO public.approvals VALUES (2, 'text2sql', 'released', 'promote', 3, 2, 0, NULL, NULL, '6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","evaluation_id":2,"name":"text2sql","policy":"0283fa87dc1e1a4efc577ea1f2ae439ef2515731d611883f218183e3ed562f56","required":null,"revision":0,"self_approval":null}', 'approve', 'eve', NULL, '2026-11-27T23:34:12.094360Z');
INSERT INTO public.approvals VALUES (3, 'text2sql', 'released', 'promote', 3, 2, 0, NULL, NULL, '6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","evaluation_id":2,"name":"text2sql","policy":"0283fa87dc1e1a4efc577ea1f2ae439ef2515731d611883f218183e3ed562f56","required":null,"revision":0,"self_approval":null}', 'withdraw', 'eve', 'not yet', '2026-11-27T23:34:12.115776Z');
INSERT INTO public.audit VALUES (1, '2026-11-27T23:34:11.197228Z', 'ada', 'register', 'tiny:v1', '{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","kind":"base","name":"tiny","version":1}', '0000000000000000000000000000000000000000000000000000000000000000', 'd267ce65789aef4b2aeaf6752873d13be06d98aabaf74d8d13e8c48140fa7a6f');
INSERT INTO public.audit VALUES (2, '2026-11-27T23:34:11.254863Z', 'ada', 'register', 'text2sql:v1', '{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","kind":"adapter","name":"text2sql","version":1}', 'd267ce65789aef4b2aeaf6752873d13be06d98aabaf74d8d13e8c48140fa7a6f', '6dc185ae05abd6210260f508984b026879aeb2b3236f9bcb614ecd7e6eb4052e');
INSERT INTO public.audit VALUES (3, '2026-11-27T23:34:11.368204Z', 'ada', 'evaluate', 'text2sql:v1', '{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb"}', '6dc185ae05abd6210260f508984b026879aeb2b3236f9bcb614ecd7e6eb4052e', '814544fbb3c180f3f4b3513ede9c0e765ea8132ffddb2d614a75de3376648e09');
INSERT INTO public.audit VALUES (4, '2026-11-27T23:34:11.418856Z', 'ada', 'register', 'text2sql:v2', '{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","kind":"adapter","name":"text2sql","version":2}', '814544fbb3c180f3f4b3513ede9c0e765ea8132ffddb2d614a75de3376648e09', '94a6c87091a1cdaf31b06e73a0407e5cd89be731797f9ea4032297c8ad6c1b37');
INSERT INTO public.audit VALUES (5, '2026-11-27T23:34:11.449797Z', 'ada', 'evaluate', 'text2sql:v2', '{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015"}', '94a6c87091a1cdaf31b06e73a0407e5cd89be731797f9ea4032297c8ad6c1b37', '9685ec5eab6c32202e40e8cb3c68348ac4303b42afacb182a9356d8ab65e2f27');
INSERT INTO public.audit VALUES (6, '2026-11-27T23:34:11.491941Z', 'ada', 'register', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","kind":"adapter","name":"text2sql","version":3}', '9685ec5eab6c32202e40e8cb3c68348ac4303b42afacb182a9356d8ab65e2f27', 'bd2631cf96a61d9f56e2dc85aa780fbd729c679e4b883e5bd70a68ff0d250d8d');
INSERT INTO public.audit VALUES (7, '2026-11-27T23:34:11.516915Z', 'ada', 'evaluate', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa"}', 'bd2631cf96a61d9f56e2dc85aa780fbd729c679e4b883e5bd70a68ff0d250d8d', '0b174be24dbcc9b59e87522f549d2383d12954f538acf12d0f74fbe7d37b728c');
INSERT INTO public.audit VALUES (8, '2026-11-27T23:34:11.547917Z', 'ada', 'promote', 'text2sql@champion', '{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":"first","revision":1,"version":1}', '0b174be24dbcc9b59e87522f549d2383d12954f538acf12d0f74fbe7d37b728c', 'a215d636c32d369ba8e36409e53059f5393573adaaed2599e2262a3ff04fb614');
INSERT INTO public.audit VALUES (9, '2026-11-27T23:34:11.631103Z', 'ada', 'promote', 'text2sql@champion', '{"alias":"champion","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reason":"better – 更好","revision":2,"version":2}', 'a215d636c32d369ba8e36409e53059f5393573adaaed2599e2262a3ff04fb614', '9c8dd7bcdfd6b230dc1252cb03f81de742cf9c80a37936fc1b5d750108866755');
INSERT INTO public.audit VALUES (10, '2026-11-27T23:34:11.677446Z', 'bob', 'promote', 'text2sql@candidate', '{"alias":"candidate","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}', '9c8dd7bcdfd6b230dc1252cb03f81de742cf9c80a37936fc1b5d750108866755', '5cb5f30e77edf06d03906b1dbbe73b925a7ac26b0629050fc649f257db8b92f5');
INSERT INTO public.audit VALUES (11, '2026-11-27T23:34:11.728279Z', 'bob', 'rollback', 'text2sql@champion', '{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"slow","revision":3,"version":1}', '5cb5f30e77edf06d03906b1dbbe73b925a7ac26b0629050fc649f257db8b92f5', '82886fe8f602f6fa21f3def5c28259318cefa88d9298daba7cee53ac2ad0110f');
INSERT INTO public.audit VALUES (12, '2026-11-27T23:34:11.778817Z', 'eve', 'refuse', 'text2sql:v3', '{"alias":"champion","digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":false,"reason":"the task gained 0.0 points, the policy asks for 10.0 points","value":0.0},{"bound":0.0,"name":"task_interval","passed":false,"reason":"the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","value":-0.05},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":false,"reason":"the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points","value":0.1}],"passed":false,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":["the task gained 0.0 points, the policy asks for 10.0 points","the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points"]},"previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reasons":["the task gained 0.0 points, the policy asks for 10.0 points","the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points"]}', '82886fe8f602f6fa21f3def5c28259318cefa88d9298daba7cee53ac2ad0110f', '72c9573e22ae456394898a362ad371e1fc9904ad7844a356cf7e2779ba8c0e6c');
INSERT INTO public.audit VALUES (13, '2026-11-27T23:34:11.799438Z', 'ada', 'run', 'text2sql sweep sweep trial 0', '{"digest":"94dc74b3ea8d3422000ae0d60a6d5c0a9a57018a89123d799adea1c6f4844ce7","name":"text2sql","number":0,"sweep":"sweep"}', '72c9573e22ae456394898a362ad371e1fc9904ad7844a356cf7e2779ba8c0e6c', '64b61f8039a30d1b2297f1e9dc5b955b82fd263de30bc7acf97368f2265cf4d6');
INSERT INTO public.audit VALUES (14, '2026-11-27T23:34:11.831773Z', 'ada', 'promote', 'text2sql@shadow', '{"alias":"shadow","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}', '64b61f8039a30d1b2297f1e9dc5b955b82fd263de30bc7acf97368f2265cf4d6', '83a209225f8df4e39a1b2a267e0e04ca0e2688c6bc660de41e60d5a55dd89c9e');
INSERT INTO public.audit VALUES (15, '2026-11-27T23:34:11.879460Z', 'bob', 'demote', 'text2sql@shadow', '{"alias":"shadow","digest":null,"evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"never used – 没用","revision":2,"version":null}', '83a209225f8df4e39a1b2a267e0e04ca0e2688c6bc660de41e60d5a55dd89c9e', '23c3a7ffd99ceaf44f5275e1b9d6dcf35bd51668a322d071b01a51ae359a0228');
INSERT INTO public.audit VALUES (16, '2026-11-27T23:34:11.921092Z', 'bob', 'deprecate', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"loses – 差","version":3}', '23c3a7ffd99ceaf44f5275e1b9d6dcf35bd51668a322d071b01a51ae359a0228', '0d5447432f42670039401894bf5a4b120f92d5e152ec55a8836af62ad2d0eb5e');
INSERT INTO public.audit VALUES (17, '2026-11-27T23:34:11.984749Z', 'ada', 'restore', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"a second look","version":3}', '0d5447432f42670039401894bf5a4b120f92d5e152ec55a8836af62ad2d0eb5e', 'bf252b9671a008e4c4a94aac83db470457d02cc563fe3279e0a58ff1375589c1');
INSERT INTO public.audit VALUES (18, '2026-11-27T23:34:12.019592Z', 'bob', 'retire', 'text2sql:v3', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"no use","version":3}', 'bf252b9671a008e4c4a94aac83db470457d02cc563fe3279e0a58ff1375589c1', 'f4098d7a7013622d7aaa86506c7131399eb41f844aa7b82a578663c865ca2e7a');
INSERT INTO public.audit VALUES (19, '2026-11-27T23:34:12.047745Z', 'ada', 'protect', 'text2sql@released', '{"alias":"released","approvals":[],"name":"text2sql","reason":"customers – 客户","required":2,"self_approval":false}', 'f4098d7a7013622d7aaa86506c7131399eb41f844aa7b82a578663c865ca2e7a', '465ba9e3faccabccac3f4da676062227e342213dad9f912b748b90f153440ae3');
INSERT INTO public.audit VALUES (20, '2026-11-27T23:34:12.070129Z', 'bob', 'approve', 'text2sql@released', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":"looked at it – 好","version":2}', '465ba9e3faccabccac3f4da676062227e342213dad9f912b748b90f153440ae3', 'ca6d9f299c6ed4f6c7dece7fd0de38848934b88967a49e9e735150cb890e01b2');
INSERT INTO public.audit VALUES (21, '2026-11-27T23:34:12.094360Z', 'eve', 'approve', 'text2sql@released', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":null,"version":2}', 'ca6d9f299c6ed4f6c7dece7fd0de38848934b88967a49e9e735150cb890e01b2', 'dbc6825f1f77511a9914225dcbc74db823f35b08546b72348cd46314eecc5066');
INSERT INTO public.audit VALUES (22, '2026-11-27T23:34:12.115776Z', 'eve', 'withdraw', 'text2sql@released', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":"not yet","version":2}', 'dbc6825f1f77511a9914225dcbc74db823f35b08546b72348cd46314eecc5066', '183381f5c615e92ab8ef801b384902d04c81a35148e8c16576987b5ec84b935a');
INSERT INTO public.evaluations VALUES (1, 2, '91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb', '{"task":{"delta":0.2,"high":0.30000000000000004,"low":0.15000000000000002,"metric":"exact_match","n":128,"tuned":0.30000000000000004},"tax":[{"low":-0.01,"suite":"grammar"}]}', '2026-11-27T23:34:11.368204Z');
INSERT INTO public.evaluations VALUES (2, 3, '5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015', '{"task":{"delta":0.3,"high":0.4,"low":0.25,"metric":"exact_match","n":128,"tuned":0.4},"tax":[{"low":-0.01,"suite":"grammar"}]}', '2026-11-27T23:34:11.449797Z');
INSERT INTO public.evaluations VALUES (3, 4, '18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa', '{"task":{"delta":0.0,"high":0.1,"low":-0.05,"metric":"exact_match","n":128,"tuned":0.1},"tax":[{"low":-0.01,"suite":"grammar"}]}', '2026-11-27T23:34:11.516915Z');
INSERT INTO public.identity VALUES (1, '715bbac7c30c276955f459278818a8ad', '2026-11-27T23:34:11.089364Z');
INSERT INTO public.outbox VALUES (1, '2026-11-27T23:34:11.197228Z', 'version.registered', '{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","kind":"base","name":"tiny","version":1}');
INSERT INTO public.outbox VALUES (2, '2026-11-27T23:34:11.254863Z', 'version.registered', '{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","kind":"adapter","name":"text2sql","version":1}');
INSERT INTO public.outbox VALUES (3, '2026-11-27T23:34:11.368204Z', 'version.evaluated', '{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","name":"text2sql","version":1}');
INSERT INTO public.outbox VALUES (4, '2026-11-27T23:34:11.418856Z', 'version.registered', '{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","kind":"adapter","name":"text2sql","version":2}');
INSERT INTO public.outbox VALUES (5, '2026-11-27T23:34:11.449797Z', 'version.evaluated', '{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","name":"text2sql","version":2}');
INSERT INTO public.outbox VALUES (6, '2026-11-27T23:34:11.491941Z', 'version.registered', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","kind":"adapter","name":"text2sql","version":3}');
INSERT INTO public.outbox VALUES (7, '2026-11-27T23:34:11.516915Z', 'version.evaluated', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa","name":"text2sql","version":3}');
INSERT INTO public.outbox VALUES (8, '2026-11-27T23:34:11.547917Z', 'alias.promote', '{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":"first","revision":1,"version":1}');
INSERT INTO public.outbox VALUES (9, '2026-11-27T23:34:11.631103Z', 'alias.promote', '{"alias":"champion","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reason":"better – 更好","revision":2,"version":2}');
INSERT INTO public.outbox VALUES (10, '2026-11-27T23:34:11.677446Z', 'alias.promote', '{"alias":"candidate","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}');
INSERT INTO public.outbox VALUES (11, '2026-11-27T23:34:11.728279Z', 'alias.rollback', '{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"slow","revision":3,"version":1}');
INSERT INTO public.outbox VALUES (12, '2026-11-27T23:34:11.831773Z', 'alias.promote', '{"alias":"shadow","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}');
INSERT INTO public.outbox VALUES (13, '2026-11-27T23:34:11.879460Z', 'alias.demote', '{"alias":"shadow","digest":null,"evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"never used – 没用","revision":2,"version":null}');
INSERT INTO public.outbox VALUES (14, '2026-11-27T23:34:11.921092Z', 'version.deprecate', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"loses – 差","version":3}');
INSERT INTO public.outbox VALUES (15, '2026-11-27T23:34:11.984749Z', 'version.restore', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"a second look","version":3}');
INSERT INTO public.outbox VALUES (16, '2026-11-27T23:34:12.019592Z', 'version.retire', '{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"no use","version":3}');
INSERT INTO public.outbox VALUES (17, '2026-11-27T23:34:12.047745Z', 'alias.protect', '{"alias":"released","approvals":[],"name":"text2sql","reason":"customers – 客户","required":2,"self_approval":false}');
INSERT INTO public.outbox VALUES (18, '2026-11-27T23:34:12.070129Z', 'alias.approve', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":"looked at it – 好","version":2}');
INSERT INTO public.outbox VALUES (19, '2026-11-27T23:34:12.094360Z', 'alias.approve', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":null,"version":2}');
INSERT INTO public.outbox VALUES (20, '2026-11-27T23:34:12.115776Z', 'alias.withdraw', '{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":"not yet","version":2}');
INSERT INTO public.protections VALUES (1, 'text2sql', 'released', 2, 0, 'ada', 'customers – 客户', '2026-11-27T23:34:12.047745Z');
INSERT INTO public.runs VALUES (1, 'text2sql', 'sweep', 0, '94dc74b3ea8d3422000ae0d60a6d5c0a9a57018a89123d799adea1c6f4844ce7', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', 'key-1', '{"data":{},"name":"text2sql","number":0,"summary":"rank 4","sweep":"sweep"}', '2026-11-27T23:34:11.799438Z');
INSERT INTO public.version_events VALUES (1, 4, 'deprecate', 'bob', 'loses – 差', '2026-11-27T23:34:11.921092Z');
INSERT INTO public.version_events VALUES (2, 4, 'restore', 'ada', 'a second look', '2026-11-27T23:34:11.984749Z');
INSERT INTO public.version_events VALUES (3, 4, 'retire', 'bob', 'no use', '2026-11-27T23:34:12.019592Z');
INSERT INTO public.version_parents VALUES (1, 2, 1, 'base', NULL);
INSERT INTO public.version_parents VALUES (2, 3, 1, 'base', NULL);
INSERT INTO public.version_parents VALUES (3, 4, 1, 'base', NULL);
INSERT INTO public.versions VALUES (1, 'tiny', 1, 'a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6', 'base', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', NULL, '{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":null,"data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"faa207d55de7950deae1d714ba59b8721a35a7813420f6aebfbf0def2ecafd6c","size":16}},"flow_run_id":null,"format":1,"kind":"base","library_versions":{},"licence":null,"metadata":{},"parents":[],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}', '2026-11-27T23:34:11.197228Z');
INSERT INTO public.versions VALUES (2, 'text2sql', 1, 'e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a', 'adapter', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', 'key-1', '{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-1","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"af43165b6d4227c4e71ca1c9b18a9b8fe135b6f66c1208a975cd12b7134a979f","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}', '2026-11-27T23:34:11.254863Z');
INSERT INTO public.versions VALUES (3, 'text2sql', 2, 'e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36', 'adapter', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', 'key-2', '{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-2","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"ae004fa4bb811221134fa48305004b172c6f0148cb19f809e68f7006fee97ba7","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}', '2026-11-27T23:34:11.418856Z');
INSERT INTO public.versions VALUES (4, 'text2sql', 3, '4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398', 'adapter', 'cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2', 'key-3', '{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-3","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"0ad04ce2a9d6044907608e09fd5967562f8da728a3c2969a37a58f7602b59689","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}', '2026-11-27T23:34:11.491941Z');
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
CREATE INDEX ix_audit_subject ON public.audit USING btree (action, subject);
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
