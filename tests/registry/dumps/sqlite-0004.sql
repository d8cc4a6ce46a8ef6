BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE alias_events (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR(128) NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	revision INTEGER NOT NULL, 
	version_id INTEGER, 
	action VARCHAR(16) NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	reason TEXT, 
	evaluation_id INTEGER, 
	gate TEXT, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT uq_alias_events_revision UNIQUE (name, alias, revision), 
	FOREIGN KEY(version_id) REFERENCES versions (id), 
	FOREIGN KEY(evaluation_id) REFERENCES evaluations (id)
);
INSERT INTO "alias_events" VALUES(1,'text2sql','champion',1,2,'promote','ada','first',1,'{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}','2026-11-27T19:37:18.320759Z');
INSERT INTO "alias_events" VALUES(2,'text2sql','champion',2,3,'promote','ada','better – 更好',2,'{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}','2026-11-27T19:37:18.324164Z');
INSERT INTO "alias_events" VALUES(3,'text2sql','candidate',1,3,'promote','bob',NULL,2,'{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}','2026-11-27T19:37:18.326962Z');
INSERT INTO "alias_events" VALUES(4,'text2sql','champion',3,2,'rollback','bob','slow',NULL,NULL,'2026-11-27T19:37:18.329544Z');
INSERT INTO "alias_events" VALUES(5,'text2sql','shadow',1,3,'promote','ada',NULL,2,'{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}','2026-11-27T19:37:18.336655Z');
INSERT INTO "alias_events" VALUES(6,'text2sql','shadow',2,NULL,'demote','bob','never used – 没用',NULL,NULL,'2026-11-27T19:37:18.338097Z');
CREATE TABLE audit (
	sequence INTEGER NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	action VARCHAR(16) NOT NULL, 
	subject VARCHAR(256) NOT NULL, 
	payload TEXT NOT NULL, 
	previous_hash VARCHAR(64) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	PRIMARY KEY (sequence), 
	CONSTRAINT uq_audit_hash UNIQUE (hash)
);
INSERT INTO "audit" VALUES(1,'2026-11-27T19:37:18.293743Z','ada','register','tiny:v1','{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","kind":"base","name":"tiny","version":1}','0000000000000000000000000000000000000000000000000000000000000000','bacb15b9fe4fb1412cba0d91667b1851eedb4ed23c6b490c355f6a36094a8999');
INSERT INTO "audit" VALUES(2,'2026-11-27T19:37:18.301946Z','ada','register','text2sql:v1','{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","kind":"adapter","name":"text2sql","version":1}','bacb15b9fe4fb1412cba0d91667b1851eedb4ed23c6b490c355f6a36094a8999','fadc0a9b0cdf1f38dde84cb386147d460d3f1cc383b8b812fcca2cd774702c4e');
INSERT INTO "audit" VALUES(3,'2026-11-27T19:37:18.304410Z','ada','evaluate','text2sql:v1','{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb"}','fadc0a9b0cdf1f38dde84cb386147d460d3f1cc383b8b812fcca2cd774702c4e','b0a4b644f9f576df772e9a6b0eed6a236d50d47c770a6b1b7edcde91a9ecee10');
INSERT INTO "audit" VALUES(4,'2026-11-27T19:37:18.310192Z','ada','register','text2sql:v2','{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","kind":"adapter","name":"text2sql","version":2}','b0a4b644f9f576df772e9a6b0eed6a236d50d47c770a6b1b7edcde91a9ecee10','bc1981d594a9e15eb4c6bd2968bc08cfc4dbc03bb7105aebd84fdb86163186a6');
INSERT INTO "audit" VALUES(5,'2026-11-27T19:37:18.312788Z','ada','evaluate','text2sql:v2','{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015"}','bc1981d594a9e15eb4c6bd2968bc08cfc4dbc03bb7105aebd84fdb86163186a6','13f343ab4b472ce9ff339a716d3a4304d6bed99735683d5cbe0688ee8972d278');
INSERT INTO "audit" VALUES(6,'2026-11-27T19:37:18.317654Z','ada','register','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","kind":"adapter","name":"text2sql","version":3}','13f343ab4b472ce9ff339a716d3a4304d6bed99735683d5cbe0688ee8972d278','a33611ee0dc14344d714bfcfa2a0e56b9580f06d00d65858d2dd1484c3139843');
INSERT INTO "audit" VALUES(7,'2026-11-27T19:37:18.319216Z','ada','evaluate','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa"}','a33611ee0dc14344d714bfcfa2a0e56b9580f06d00d65858d2dd1484c3139843','d9c57452e4d188caa053bfaa7647f767f654c8c8b8631868eaf15c0b9ffd88f2');
INSERT INTO "audit" VALUES(8,'2026-11-27T19:37:18.320759Z','ada','promote','text2sql@champion','{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":"first","revision":1,"version":1}','d9c57452e4d188caa053bfaa7647f767f654c8c8b8631868eaf15c0b9ffd88f2','38577869270a99865b35d37949ad0f0f67adf6d70e63f18dcc1ce9b5be55f437');
INSERT INTO "audit" VALUES(9,'2026-11-27T19:37:18.324164Z','ada','promote','text2sql@champion','{"alias":"champion","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reason":"better – 更好","revision":2,"version":2}','38577869270a99865b35d37949ad0f0f67adf6d70e63f18dcc1ce9b5be55f437','ec1f421f905559412aa31ae37906f5c3110c59ee12a103d753e9667fc36ac7f3');
INSERT INTO "audit" VALUES(10,'2026-11-27T19:37:18.326962Z','bob','promote','text2sql@candidate','{"alias":"candidate","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}','ec1f421f905559412aa31ae37906f5c3110c59ee12a103d753e9667fc36ac7f3','0297aee7e8a5a31b409fa1c5bb93e8130077373349a4c78b27f36b54e69c60c0');
INSERT INTO "audit" VALUES(11,'2026-11-27T19:37:18.329544Z','bob','rollback','text2sql@champion','{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"slow","revision":3,"version":1}','0297aee7e8a5a31b409fa1c5bb93e8130077373349a4c78b27f36b54e69c60c0','95c7e41916ca6d7f4f99d124a14ac133a25a3a557d7e86e0b00832a6868b4814');
INSERT INTO "audit" VALUES(12,'2026-11-27T19:37:18.332105Z','eve','refuse','text2sql:v3','{"alias":"champion","digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":false,"reason":"the task gained 0.0 points, the policy asks for 10.0 points","value":0.0},{"bound":0.0,"name":"task_interval","passed":false,"reason":"the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","value":-0.05},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":false,"reason":"the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points","value":0.1}],"passed":false,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":["the task gained 0.0 points, the policy asks for 10.0 points","the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points"]},"previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reasons":["the task gained 0.0 points, the policy asks for 10.0 points","the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points"]}','95c7e41916ca6d7f4f99d124a14ac133a25a3a557d7e86e0b00832a6868b4814','0d967de6a89fe98d957058f77ac8d09da19cbe4a1c206675ee090bc0ddfc579f');
INSERT INTO "audit" VALUES(13,'2026-11-27T19:37:18.333715Z','ada','run','text2sql sweep sweep trial 0','{"digest":"94dc74b3ea8d3422000ae0d60a6d5c0a9a57018a89123d799adea1c6f4844ce7","name":"text2sql","number":0,"sweep":"sweep"}','0d967de6a89fe98d957058f77ac8d09da19cbe4a1c206675ee090bc0ddfc579f','51704d6aaa932a47f2dfd2fd9eba4006d29b7e30a9f1ef048b5d590764cff359');
INSERT INTO "audit" VALUES(14,'2026-11-27T19:37:18.336655Z','ada','promote','text2sql@shadow','{"alias":"shadow","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}','51704d6aaa932a47f2dfd2fd9eba4006d29b7e30a9f1ef048b5d590764cff359','b8f1fa42bdedf9592fe099f0e39a1e2664bec3d2ce6a7ba7841847f8704c398c');
INSERT INTO "audit" VALUES(15,'2026-11-27T19:37:18.338097Z','bob','demote','text2sql@shadow','{"alias":"shadow","digest":null,"evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"never used – 没用","revision":2,"version":null}','b8f1fa42bdedf9592fe099f0e39a1e2664bec3d2ce6a7ba7841847f8704c398c','6aed07af681e45ee55d34cfa97c72c247fa72cdabd92ff3544eec9626aea0359');
INSERT INTO "audit" VALUES(16,'2026-11-27T19:37:18.339301Z','bob','deprecate','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"loses – 差","version":3}','6aed07af681e45ee55d34cfa97c72c247fa72cdabd92ff3544eec9626aea0359','290865d6d4e6a9ecf5f816ba8b1d95013fcc08bf67af1ad7d26a7be58d023ff0');
INSERT INTO "audit" VALUES(17,'2026-11-27T19:37:18.341065Z','ada','restore','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"a second look","version":3}','290865d6d4e6a9ecf5f816ba8b1d95013fcc08bf67af1ad7d26a7be58d023ff0','2560890124678f99b0ff685dd1be8ffc37527e6183ad239b577201fcecb8c5bd');
INSERT INTO "audit" VALUES(18,'2026-11-27T19:37:18.342456Z','bob','retire','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"no use","version":3}','2560890124678f99b0ff685dd1be8ffc37527e6183ad239b577201fcecb8c5bd','8b5be00a70b137f42d245369d9411cb573fc9feb3626ca332f0f36190c449e70');
CREATE TABLE evaluations (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	version_id INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	report TEXT NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "evaluations" VALUES(1,2,'91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb','{"task":{"delta":0.2,"high":0.30000000000000004,"low":0.15000000000000002,"metric":"exact_match","n":128,"tuned":0.30000000000000004},"tax":[{"low":-0.01,"suite":"grammar"}]}','2026-11-27T19:37:18.304410Z');
INSERT INTO "evaluations" VALUES(2,3,'5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015','{"task":{"delta":0.3,"high":0.4,"low":0.25,"metric":"exact_match","n":128,"tuned":0.4},"tax":[{"low":-0.01,"suite":"grammar"}]}','2026-11-27T19:37:18.312788Z');
INSERT INTO "evaluations" VALUES(3,4,'18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa','{"task":{"delta":0.0,"high":0.1,"low":-0.05,"metric":"exact_match","n":128,"tuned":0.1},"tax":[{"low":-0.01,"suite":"grammar"}]}','2026-11-27T19:37:18.319216Z');
CREATE TABLE identity (
	id INTEGER NOT NULL, 
	registry VARCHAR(32) NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT ck_identity_one_row CHECK (id = 1)
);
INSERT INTO "identity" VALUES(1,'23c5b8ed0f76e885992008b33c3362d7','2026-11-27T19:37:18.271761Z');
CREATE TABLE outbox (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	created_at VARCHAR(32) NOT NULL, 
	topic VARCHAR(64) NOT NULL, 
	payload TEXT NOT NULL
);
INSERT INTO "outbox" VALUES(1,'2026-11-27T19:37:18.293743Z','version.registered','{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","kind":"base","name":"tiny","version":1}');
INSERT INTO "outbox" VALUES(2,'2026-11-27T19:37:18.301946Z','version.registered','{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","kind":"adapter","name":"text2sql","version":1}');
INSERT INTO "outbox" VALUES(3,'2026-11-27T19:37:18.310192Z','version.registered','{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","kind":"adapter","name":"text2sql","version":2}');
INSERT INTO "outbox" VALUES(4,'2026-11-27T19:37:18.317654Z','version.registered','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","kind":"adapter","name":"text2sql","version":3}');
INSERT INTO "outbox" VALUES(5,'2026-11-27T19:37:18.320759Z','alias.promote','{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":"first","revision":1,"version":1}');
INSERT INTO "outbox" VALUES(6,'2026-11-27T19:37:18.324164Z','alias.promote','{"alias":"champion","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reason":"better – 更好","revision":2,"version":2}');
INSERT INTO "outbox" VALUES(7,'2026-11-27T19:37:18.326962Z','alias.promote','{"alias":"candidate","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}');
INSERT INTO "outbox" VALUES(8,'2026-11-27T19:37:18.329544Z','alias.rollback','{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"slow","revision":3,"version":1}');
INSERT INTO "outbox" VALUES(9,'2026-11-27T19:37:18.336655Z','alias.promote','{"alias":"shadow","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}');
INSERT INTO "outbox" VALUES(10,'2026-11-27T19:37:18.338097Z','alias.demote','{"alias":"shadow","digest":null,"evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"never used – 没用","revision":2,"version":null}');
INSERT INTO "outbox" VALUES(11,'2026-11-27T19:37:18.339301Z','version.deprecate','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"loses – 差","version":3}');
INSERT INTO "outbox" VALUES(12,'2026-11-27T19:37:18.341065Z','version.restore','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"a second look","version":3}');
INSERT INTO "outbox" VALUES(13,'2026-11-27T19:37:18.342456Z','version.retire','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"no use","version":3}');
CREATE TABLE runs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR(128) NOT NULL, 
	sweep VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	base_fingerprint VARCHAR(64) NOT NULL, 
	content_key VARCHAR(256), 
	document TEXT NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT uq_runs_digest UNIQUE (digest), 
	CONSTRAINT uq_runs_number UNIQUE (name, sweep, number)
);
INSERT INTO "runs" VALUES(1,'text2sql','sweep',0,'94dc74b3ea8d3422000ae0d60a6d5c0a9a57018a89123d799adea1c6f4844ce7','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2','key-1','{"data":{},"name":"text2sql","number":0,"summary":"rank 4","sweep":"sweep"}','2026-11-27T19:37:18.333715Z');
CREATE TABLE version_events (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	version_id INTEGER NOT NULL, 
	action VARCHAR(16) NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	reason TEXT NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT ck_version_events_action CHECK (action IN ('deprecate', 'restore', 'retire')), 
	FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "version_events" VALUES(1,4,'deprecate','bob','loses – 差','2026-11-27T19:37:18.339301Z');
INSERT INTO "version_events" VALUES(2,4,'restore','ada','a second look','2026-11-27T19:37:18.341065Z');
INSERT INTO "version_events" VALUES(3,4,'retire','bob','no use','2026-11-27T19:37:18.342456Z');
CREATE TABLE version_parents (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	child_id INTEGER NOT NULL, 
	parent_id INTEGER NOT NULL, 
	role VARCHAR(32) NOT NULL, 
	weight FLOAT, 
	CONSTRAINT uq_version_parents_edge UNIQUE (child_id, parent_id, role), 
	CONSTRAINT ck_version_parents_older CHECK (parent_id < child_id), 
	FOREIGN KEY(child_id) REFERENCES versions (id), 
	FOREIGN KEY(parent_id) REFERENCES versions (id)
);
INSERT INTO "version_parents" VALUES(1,2,1,'base',NULL);
INSERT INTO "version_parents" VALUES(2,3,1,'base',NULL);
INSERT INTO "version_parents" VALUES(3,4,1,'base',NULL);
CREATE TABLE versions (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR(128) NOT NULL, 
	number INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	base_fingerprint VARCHAR(64), 
	content_key VARCHAR(256), 
	manifest TEXT NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT uq_versions_digest UNIQUE (digest), 
	CONSTRAINT uq_versions_number UNIQUE (name, number), 
	CONSTRAINT uq_versions_content_key UNIQUE (name, content_key), 
	CONSTRAINT ck_versions_number CHECK (number >= 1)
);
INSERT INTO "versions" VALUES(1,'tiny',1,'a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6','base','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2',NULL,'{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":null,"data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"faa207d55de7950deae1d714ba59b8721a35a7813420f6aebfbf0def2ecafd6c","size":16}},"flow_run_id":null,"format":1,"kind":"base","library_versions":{},"licence":null,"metadata":{},"parents":[],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}','2026-11-27T19:37:18.293743Z');
INSERT INTO "versions" VALUES(2,'text2sql',1,'e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a','adapter','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2','key-1','{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-1","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"af43165b6d4227c4e71ca1c9b18a9b8fe135b6f66c1208a975cd12b7134a979f","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}','2026-11-27T19:37:18.301946Z');
INSERT INTO "versions" VALUES(3,'text2sql',2,'e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36','adapter','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2','key-2','{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-2","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"ae004fa4bb811221134fa48305004b172c6f0148cb19f809e68f7006fee97ba7","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}','2026-11-27T19:37:18.310192Z');
INSERT INTO "versions" VALUES(4,'text2sql',3,'4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398','adapter','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2','key-3','{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-3","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"0ad04ce2a9d6044907608e09fd5967562f8da728a3c2969a37a58f7602b59689","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}','2026-11-27T19:37:18.317654Z');
CREATE INDEX ix_versions_base_fingerprint ON versions (base_fingerprint);
CREATE INDEX ix_version_parents_parent ON version_parents (parent_id);
CREATE INDEX ix_evaluations_version ON evaluations (version_id, id);
CREATE TRIGGER versions_no_update BEFORE UPDATE ON versions BEGIN SELECT RAISE(ABORT, 'versions is insert-only'); END;
CREATE TRIGGER versions_no_delete BEFORE DELETE ON versions BEGIN SELECT RAISE(ABORT, 'versions is insert-only'); END;
CREATE TRIGGER versions_no_replace BEFORE INSERT ON versions WHEN EXISTS (SELECT 1 FROM versions WHERE id = NEW.id OR digest = NEW.digest OR (name = NEW.name AND number = NEW.number) OR (name = NEW.name AND content_key = NEW.content_key)) BEGIN SELECT RAISE(ABORT, 'versions is insert-only: this key is taken'); END;
CREATE TRIGGER version_parents_no_update BEFORE UPDATE ON version_parents BEGIN SELECT RAISE(ABORT, 'version_parents is insert-only'); END;
CREATE TRIGGER version_parents_no_delete BEFORE DELETE ON version_parents BEGIN SELECT RAISE(ABORT, 'version_parents is insert-only'); END;
CREATE TRIGGER version_parents_no_replace BEFORE INSERT ON version_parents WHEN EXISTS (SELECT 1 FROM version_parents WHERE id = NEW.id OR (child_id = NEW.child_id AND parent_id = NEW.parent_id AND role = NEW.role)) BEGIN SELECT RAISE(ABORT, 'version_parents is insert-only: this key is taken'); END;
CREATE TRIGGER evaluations_no_update BEFORE UPDATE ON evaluations BEGIN SELECT RAISE(ABORT, 'evaluations is insert-only'); END;
CREATE TRIGGER evaluations_no_delete BEFORE DELETE ON evaluations BEGIN SELECT RAISE(ABORT, 'evaluations is insert-only'); END;
CREATE TRIGGER evaluations_no_replace BEFORE INSERT ON evaluations WHEN EXISTS (SELECT 1 FROM evaluations WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'evaluations is insert-only: this key is taken'); END;
CREATE TRIGGER alias_events_no_update BEFORE UPDATE ON alias_events BEGIN SELECT RAISE(ABORT, 'alias_events is insert-only'); END;
CREATE TRIGGER alias_events_no_delete BEFORE DELETE ON alias_events BEGIN SELECT RAISE(ABORT, 'alias_events is insert-only'); END;
CREATE TRIGGER alias_events_no_replace BEFORE INSERT ON alias_events WHEN EXISTS (SELECT 1 FROM alias_events WHERE id = NEW.id OR (name = NEW.name AND alias = NEW.alias AND revision = NEW.revision)) BEGIN SELECT RAISE(ABORT, 'alias_events is insert-only: this key is taken'); END;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is insert-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is insert-only'); END;
CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE sequence = NEW.sequence OR hash = NEW.hash) BEGIN SELECT RAISE(ABORT, 'audit is insert-only: this key is taken'); END;
CREATE TRIGGER outbox_no_update BEFORE UPDATE ON outbox BEGIN SELECT RAISE(ABORT, 'outbox is insert-only'); END;
CREATE TRIGGER outbox_no_delete BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'outbox is insert-only'); END;
CREATE TRIGGER outbox_no_replace BEFORE INSERT ON outbox WHEN EXISTS (SELECT 1 FROM outbox WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'outbox is insert-only: this key is taken'); END;
CREATE TRIGGER alias_events_one_chain BEFORE INSERT ON alias_events WHEN NEW.revision IS NOT 1 + (SELECT coalesce(max(revision), 0) FROM alias_events WHERE name = NEW.name AND alias = NEW.alias) BEGIN SELECT RAISE(ABORT, 'alias_events: revision is not the next one'); END;
CREATE TRIGGER alias_events_own_versions BEFORE INSERT ON alias_events WHEN NEW.version_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM versions WHERE id = NEW.version_id AND name = NEW.name) BEGIN SELECT RAISE(ABORT, 'alias_events: the version is not one of this model'); END;
CREATE TRIGGER audit_one_chain BEFORE INSERT ON audit WHEN NEW.sequence IS NOT 1 + (SELECT coalesce(max(sequence), 0) FROM audit) OR NEW.previous_hash IS NOT coalesce((SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1), '0000000000000000000000000000000000000000000000000000000000000000') BEGIN SELECT RAISE(ABORT, 'audit: the row does not continue the chain'); END;
CREATE INDEX ix_runs_base_fingerprint ON runs (base_fingerprint);
CREATE INDEX ix_runs_content_key ON runs (name, content_key);
CREATE TRIGGER runs_no_update BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'runs is insert-only'); END;
CREATE TRIGGER runs_no_delete BEFORE DELETE ON runs BEGIN SELECT RAISE(ABORT, 'runs is insert-only'); END;
CREATE TRIGGER runs_no_replace BEFORE INSERT ON runs WHEN EXISTS (SELECT 1 FROM runs WHERE id = NEW.id OR digest = NEW.digest OR (name = NEW.name AND sweep = NEW.sweep AND number = NEW.number)) BEGIN SELECT RAISE(ABORT, 'runs is insert-only: this key is taken'); END;
CREATE TRIGGER identity_no_update BEFORE UPDATE ON identity BEGIN SELECT RAISE(ABORT, 'identity is insert-only'); END;
CREATE TRIGGER identity_no_delete BEFORE DELETE ON identity BEGIN SELECT RAISE(ABORT, 'identity is insert-only'); END;
CREATE TRIGGER identity_no_replace BEFORE INSERT ON identity WHEN EXISTS (SELECT 1 FROM identity WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'identity is insert-only: this key is taken'); END;
CREATE INDEX ix_version_events_version ON version_events (version_id, id);
CREATE TRIGGER version_events_no_update BEFORE UPDATE ON version_events BEGIN SELECT RAISE(ABORT, 'version_events is insert-only'); END;
CREATE TRIGGER version_events_no_delete BEFORE DELETE ON version_events BEGIN SELECT RAISE(ABORT, 'version_events is insert-only'); END;
CREATE TRIGGER version_events_no_replace BEFORE INSERT ON version_events WHEN EXISTS (SELECT 1 FROM version_events WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'version_events is insert-only: this key is taken'); END;
CREATE TRIGGER version_events_steps BEFORE INSERT ON version_events WHEN (NEW.action = 'deprecate' AND coalesce((SELECT action FROM version_events WHERE version_id = NEW.version_id ORDER BY id DESC LIMIT 1), 'restore') <> 'restore') OR (NEW.action <> 'deprecate' AND coalesce((SELECT action FROM version_events WHERE version_id = NEW.version_id ORDER BY id DESC LIMIT 1), 'restore') = NEW.action) BEGIN SELECT RAISE(ABORT, 'version_events: the version is in another state'); END;
CREATE TRIGGER version_events_held BEFORE INSERT ON version_events WHEN NEW.action = 'retire' AND (EXISTS (SELECT 1 FROM alias_events WHERE version_id = NEW.version_id) OR EXISTS (SELECT 1 FROM version_parents p WHERE p.parent_id = NEW.version_id AND coalesce((SELECT action FROM version_events WHERE version_id = p.child_id ORDER BY id DESC LIMIT 1), 'restore') <> 'retire')) BEGIN SELECT RAISE(ABORT, 'version_events: an alias or a version that is not retired needs it'); END;
CREATE TRIGGER version_events_parents BEFORE INSERT ON version_events WHEN NEW.action = 'restore' AND EXISTS (SELECT 1 FROM version_parents p WHERE p.child_id = NEW.version_id AND (SELECT action FROM version_events WHERE version_id = p.parent_id ORDER BY id DESC LIMIT 1) = 'retire') BEGIN SELECT RAISE(ABORT, 'version_events: a parent is retired'); END;
CREATE TRIGGER version_parents_not_retired BEFORE INSERT ON version_parents WHEN (SELECT action FROM version_events WHERE version_id = NEW.parent_id ORDER BY id DESC LIMIT 1) = 'retire' BEGIN SELECT RAISE(ABORT, 'version_parents: the parent is retired'); END;
CREATE TRIGGER alias_events_not_retired BEFORE INSERT ON alias_events WHEN coalesce((SELECT action FROM version_events WHERE version_id = NEW.version_id ORDER BY id DESC LIMIT 1), 'restore') = 'retire' OR (NEW.action = 'promote' AND (SELECT action FROM version_events WHERE version_id = NEW.version_id ORDER BY id DESC LIMIT 1) = 'deprecate') BEGIN SELECT RAISE(ABORT, 'alias_events: the version is retired or deprecated'); END;
CREATE TRIGGER alias_events_demotions BEFORE INSERT ON alias_events WHEN (NEW.version_id IS NULL) <> (NEW.action = 'demote') BEGIN SELECT RAISE(ABORT, 'alias_events: a demotion, and nothing else, points at nothing'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('versions',4);
INSERT INTO "sqlite_sequence" VALUES('outbox',13);
INSERT INTO "sqlite_sequence" VALUES('version_parents',3);
INSERT INTO "sqlite_sequence" VALUES('evaluations',3);
INSERT INTO "sqlite_sequence" VALUES('alias_events',6);
INSERT INTO "sqlite_sequence" VALUES('runs',1);
INSERT INTO "sqlite_sequence" VALUES('version_events',3);
COMMIT;
