BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
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
INSERT INTO "alias_events" VALUES(1,'text2sql','champion',1,2,'promote','ada','first',1,'{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}','2026-11-27T23:34:02.371426Z');
INSERT INTO "alias_events" VALUES(2,'text2sql','champion',2,3,'promote','ada','better – 更好',2,'{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}','2026-11-27T23:34:02.684030Z');
INSERT INTO "alias_events" VALUES(3,'text2sql','candidate',1,3,'promote','bob',NULL,2,'{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}','2026-11-27T23:34:02.695189Z');
INSERT INTO "alias_events" VALUES(4,'text2sql','champion',3,2,'rollback','bob','slow',NULL,NULL,'2026-11-27T23:34:02.711675Z');
INSERT INTO "alias_events" VALUES(5,'text2sql','shadow',1,3,'promote','ada',NULL,2,'{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]}','2026-11-27T23:34:02.734483Z');
INSERT INTO "alias_events" VALUES(6,'text2sql','shadow',2,NULL,'demote','bob','never used – 没用',NULL,NULL,'2026-11-27T23:34:02.736849Z');
CREATE TABLE approvals (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR(128) NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	act VARCHAR(16) NOT NULL, 
	version_id INTEGER, 
	evaluation_id INTEGER, 
	revision INTEGER NOT NULL, 
	required INTEGER, 
	self_approval INTEGER, 
	digest VARCHAR(64) NOT NULL, 
	matter TEXT NOT NULL, 
	action VARCHAR(16) NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	reason TEXT, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT ck_approvals_act CHECK (act IN ('promote', 'demote', 'unprotect')), 
	CONSTRAINT ck_approvals_action CHECK (action IN ('approve', 'withdraw')), 
	CONSTRAINT ck_approvals_version CHECK ((act = 'unprotect') = (version_id IS NULL)), 
	CONSTRAINT ck_approvals_weaker CHECK ((act = 'unprotect') = (required IS NOT NULL) AND (act = 'unprotect') = (self_approval IS NOT NULL)), 
	FOREIGN KEY(version_id) REFERENCES versions (id), 
	FOREIGN KEY(evaluation_id) REFERENCES evaluations (id)
);
INSERT INTO "approvals" VALUES(1,'text2sql','released','promote',3,2,0,NULL,NULL,'6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5','{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","evaluation_id":2,"name":"text2sql","policy":"0283fa87dc1e1a4efc577ea1f2ae439ef2515731d611883f218183e3ed562f56","required":null,"revision":0,"self_approval":null}','approve','bob','looked at it – 好','2026-11-27T23:34:02.770987Z');
INSERT INTO "approvals" VALUES(2,'text2sql','released','promote',3,2,0,NULL,NULL,'6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5','{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","evaluation_id":2,"name":"text2sql","policy":"0283fa87dc1e1a4efc577ea1f2ae439ef2515731d611883f218183e3ed562f56","required":null,"revision":0,"self_approval":null}','approve','eve',NULL,'2026-11-27T23:34:02.781111Z');
INSERT INTO "approvals" VALUES(3,'text2sql','released','promote',3,2,0,NULL,NULL,'6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5','{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","evaluation_id":2,"name":"text2sql","policy":"0283fa87dc1e1a4efc577ea1f2ae439ef2515731d611883f218183e3ed562f56","required":null,"revision":0,"self_approval":null}','withdraw','eve','not yet','2026-11-27T23:34:02.786726Z');
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
INSERT INTO "audit" VALUES(1,'2026-11-27T23:34:02.034144Z','ada','register','tiny:v1','{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","kind":"base","name":"tiny","version":1}','0000000000000000000000000000000000000000000000000000000000000000','65a3d5fc3cc1a6e09c7c1f9459b335921a25e66c18c2a0fff5751161bc5ab625');
INSERT INTO "audit" VALUES(2,'2026-11-27T23:34:02.135116Z','ada','register','text2sql:v1','{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","kind":"adapter","name":"text2sql","version":1}','65a3d5fc3cc1a6e09c7c1f9459b335921a25e66c18c2a0fff5751161bc5ab625','be59c81293ff4682b313f7f6e4d8464db77b5985fcd38cdd3c282a37e011e6a0');
INSERT INTO "audit" VALUES(3,'2026-11-27T23:34:02.148334Z','ada','evaluate','text2sql:v1','{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb"}','be59c81293ff4682b313f7f6e4d8464db77b5985fcd38cdd3c282a37e011e6a0','9462f86b20177c444c8f5a3e224049b2b6d36d5ec165c485a7bba4468934e518');
INSERT INTO "audit" VALUES(4,'2026-11-27T23:34:02.247007Z','ada','register','text2sql:v2','{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","kind":"adapter","name":"text2sql","version":2}','9462f86b20177c444c8f5a3e224049b2b6d36d5ec165c485a7bba4468934e518','27fc38ecb381e3b1c1f9332f081dab9d89caf2c6bd31d591817610e245b707fa');
INSERT INTO "audit" VALUES(5,'2026-11-27T23:34:02.258427Z','ada','evaluate','text2sql:v2','{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015"}','27fc38ecb381e3b1c1f9332f081dab9d89caf2c6bd31d591817610e245b707fa','72a878436487140a739468ed2bac736bb5a8356db03e5b3ac337548f1ee2d61a');
INSERT INTO "audit" VALUES(6,'2026-11-27T23:34:02.355062Z','ada','register','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","kind":"adapter","name":"text2sql","version":3}','72a878436487140a739468ed2bac736bb5a8356db03e5b3ac337548f1ee2d61a','20f5b0de3270c2211544d42e904d31be02acb26c59ff7beee64ba3407fa036a1');
INSERT INTO "audit" VALUES(7,'2026-11-27T23:34:02.366561Z','ada','evaluate','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa"}','20f5b0de3270c2211544d42e904d31be02acb26c59ff7beee64ba3407fa036a1','6bbda260db27649cc20c4d2e77abaa04ce4b47a0871fe9b9ae367adde1cdec3d');
INSERT INTO "audit" VALUES(8,'2026-11-27T23:34:02.371426Z','ada','promote','text2sql@champion','{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":"first","revision":1,"version":1}','6bbda260db27649cc20c4d2e77abaa04ce4b47a0871fe9b9ae367adde1cdec3d','58d071d743e75fc5e4768bb09bb76fd79abab24cac390a4dc30bfa6c14f62412');
INSERT INTO "audit" VALUES(9,'2026-11-27T23:34:02.684030Z','ada','promote','text2sql@champion','{"alias":"champion","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reason":"better – 更好","revision":2,"version":2}','58d071d743e75fc5e4768bb09bb76fd79abab24cac390a4dc30bfa6c14f62412','3d6bc7fd543c09daf41c6abde8d9be5beb419287ac399995b09eb05e8d639e57');
INSERT INTO "audit" VALUES(10,'2026-11-27T23:34:02.695189Z','bob','promote','text2sql@candidate','{"alias":"candidate","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}','3d6bc7fd543c09daf41c6abde8d9be5beb419287ac399995b09eb05e8d639e57','e3f9c0fb8e837344ddc93b7a32d4b6de7d90f9db4aae9856e3af286e5e621919');
INSERT INTO "audit" VALUES(11,'2026-11-27T23:34:02.711675Z','bob','rollback','text2sql@champion','{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"slow","revision":3,"version":1}','e3f9c0fb8e837344ddc93b7a32d4b6de7d90f9db4aae9856e3af286e5e621919','dd02930ea563be66b7212741b7a8efe12085703d010c90a935f7f67dcc964645');
INSERT INTO "audit" VALUES(12,'2026-11-27T23:34:02.719330Z','eve','refuse','text2sql:v3','{"alias":"champion","digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":false,"reason":"the task gained 0.0 points, the policy asks for 10.0 points","value":0.0},{"bound":0.0,"name":"task_interval","passed":false,"reason":"the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","value":-0.05},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":false,"reason":"the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points","value":0.1}],"passed":false,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":["the task gained 0.0 points, the policy asks for 10.0 points","the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points"]},"previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reasons":["the task gained 0.0 points, the policy asks for 10.0 points","the gain''s 95 % interval [-5.0 points, 10.0 points] does not lie above zero","the task score is 10.0 %, that of text2sql:v1 is 30.0 %, the policy allows a loss of 0.0 points"]}','dd02930ea563be66b7212741b7a8efe12085703d010c90a935f7f67dcc964645','672a74152e922a7050d76879937af38c58dadbecc5a796cd56a15e982f8b04a0');
INSERT INTO "audit" VALUES(13,'2026-11-27T23:34:02.725972Z','ada','run','text2sql sweep sweep trial 0','{"digest":"94dc74b3ea8d3422000ae0d60a6d5c0a9a57018a89123d799adea1c6f4844ce7","name":"text2sql","number":0,"sweep":"sweep"}','672a74152e922a7050d76879937af38c58dadbecc5a796cd56a15e982f8b04a0','d905eee2bbc56a52849a816f3d641fbd2f3954cd51a2aec51c0976687b9faf36');
INSERT INTO "audit" VALUES(14,'2026-11-27T23:34:02.734483Z','ada','promote','text2sql@shadow','{"alias":"shadow","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}','d905eee2bbc56a52849a816f3d641fbd2f3954cd51a2aec51c0976687b9faf36','9ab46f15df84ef9058b9392a62d8327b45e234335031730532d75bb80d324ff5');
INSERT INTO "audit" VALUES(15,'2026-11-27T23:34:02.736849Z','bob','demote','text2sql@shadow','{"alias":"shadow","digest":null,"evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"never used – 没用","revision":2,"version":null}','9ab46f15df84ef9058b9392a62d8327b45e234335031730532d75bb80d324ff5','2eb6452d95497624067100b4a49354b830bcc197dfaf251cd952df2b7d253a84');
INSERT INTO "audit" VALUES(16,'2026-11-27T23:34:02.740998Z','bob','deprecate','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"loses – 差","version":3}','2eb6452d95497624067100b4a49354b830bcc197dfaf251cd952df2b7d253a84','b6928672909eb84b438a5d0d4e20a5956b88837aaef400b68b6be14dc6b8b5fd');
INSERT INTO "audit" VALUES(17,'2026-11-27T23:34:02.749230Z','ada','restore','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"a second look","version":3}','b6928672909eb84b438a5d0d4e20a5956b88837aaef400b68b6be14dc6b8b5fd','75be4c2ad54450a7aba6719c9f36cf2bcb349d1cae4b8126b0b7bb8d2482402a');
INSERT INTO "audit" VALUES(18,'2026-11-27T23:34:02.755054Z','bob','retire','text2sql:v3','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"no use","version":3}','75be4c2ad54450a7aba6719c9f36cf2bcb349d1cae4b8126b0b7bb8d2482402a','a91ac6c55aaf258b84c03f30a5990c02b6eecd63d463156b9b6ef81c6073e36d');
INSERT INTO "audit" VALUES(19,'2026-11-27T23:34:02.764427Z','ada','protect','text2sql@released','{"alias":"released","approvals":[],"name":"text2sql","reason":"customers – 客户","required":2,"self_approval":false}','a91ac6c55aaf258b84c03f30a5990c02b6eecd63d463156b9b6ef81c6073e36d','e25b4b62a3f9aab179921ee4214b9f99a7ef5356d07bc95fa39a8ed22ea72a39');
INSERT INTO "audit" VALUES(20,'2026-11-27T23:34:02.770987Z','bob','approve','text2sql@released','{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":"looked at it – 好","version":2}','e25b4b62a3f9aab179921ee4214b9f99a7ef5356d07bc95fa39a8ed22ea72a39','e586444d624ae76be2010ee892b16da195a463943caecc78cf76fee5c1360352');
INSERT INTO "audit" VALUES(21,'2026-11-27T23:34:02.781111Z','eve','approve','text2sql@released','{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":null,"version":2}','e586444d624ae76be2010ee892b16da195a463943caecc78cf76fee5c1360352','454d0fced14145be8a23f78e0e507555d4a56b442ffd64a74e3df297d9d2ab7d');
INSERT INTO "audit" VALUES(22,'2026-11-27T23:34:02.786726Z','eve','withdraw','text2sql@released','{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":"not yet","version":2}','454d0fced14145be8a23f78e0e507555d4a56b442ffd64a74e3df297d9d2ab7d','c22d6b97d5de7253c5a330200dc42246ce7dc77eac9beb7084c97c4b5dcb5ab1');
CREATE TABLE evaluations (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	version_id INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	report TEXT NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "evaluations" VALUES(1,2,'91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb','{"task":{"delta":0.2,"high":0.30000000000000004,"low":0.15000000000000002,"metric":"exact_match","n":128,"tuned":0.30000000000000004},"tax":[{"low":-0.01,"suite":"grammar"}]}','2026-11-27T23:34:02.148334Z');
INSERT INTO "evaluations" VALUES(2,3,'5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015','{"task":{"delta":0.3,"high":0.4,"low":0.25,"metric":"exact_match","n":128,"tuned":0.4},"tax":[{"low":-0.01,"suite":"grammar"}]}','2026-11-27T23:34:02.258427Z');
INSERT INTO "evaluations" VALUES(3,4,'18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa','{"task":{"delta":0.0,"high":0.1,"low":-0.05,"metric":"exact_match","n":128,"tuned":0.1},"tax":[{"low":-0.01,"suite":"grammar"}]}','2026-11-27T23:34:02.366561Z');
CREATE TABLE identity (
	id INTEGER NOT NULL, 
	registry VARCHAR(32) NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT ck_identity_one_row CHECK (id = 1)
);
INSERT INTO "identity" VALUES(1,'cc4529b9f2929aa87f597dad6b5d944c','2026-11-27T23:34:01.754572Z');
CREATE TABLE outbox (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	created_at VARCHAR(32) NOT NULL, 
	topic VARCHAR(64) NOT NULL, 
	payload TEXT NOT NULL
);
INSERT INTO "outbox" VALUES(1,'2026-11-27T23:34:02.034144Z','version.registered','{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","kind":"base","name":"tiny","version":1}');
INSERT INTO "outbox" VALUES(2,'2026-11-27T23:34:02.135116Z','version.registered','{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","kind":"adapter","name":"text2sql","version":1}');
INSERT INTO "outbox" VALUES(3,'2026-11-27T23:34:02.148334Z','version.evaluated','{"digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","name":"text2sql","version":1}');
INSERT INTO "outbox" VALUES(4,'2026-11-27T23:34:02.247007Z','version.registered','{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","kind":"adapter","name":"text2sql","version":2}');
INSERT INTO "outbox" VALUES(5,'2026-11-27T23:34:02.258427Z','version.evaluated','{"digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","name":"text2sql","version":2}');
INSERT INTO "outbox" VALUES(6,'2026-11-27T23:34:02.355062Z','version.registered','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","kind":"adapter","name":"text2sql","version":3}');
INSERT INTO "outbox" VALUES(7,'2026-11-27T23:34:02.366561Z','version.evaluated','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","evaluation":"18388c75c52b884db2b0458f99470e6e561119a9afdd6d0d706406cd91dcc0aa","name":"text2sql","version":3}');
INSERT INTO "outbox" VALUES(8,'2026-11-27T23:34:02.371426Z','alias.promote','{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.2},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.15000000000000002},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":"first","revision":1,"version":1}');
INSERT INTO "outbox" VALUES(9,'2026-11-27T23:34:02.684030Z','alias.promote','{"alias":"champion","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":"91f40f7f23babd18d6c0ffdcbf23992dc12a8352a1d584ae32c3f1576588b9bb","checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01},{"bound":0.30000000000000004,"name":"champion","passed":true,"reason":null,"value":0.4}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","reason":"better – 更好","revision":2,"version":2}');
INSERT INTO "outbox" VALUES(10,'2026-11-27T23:34:02.695189Z','alias.promote','{"alias":"candidate","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}');
INSERT INTO "outbox" VALUES(11,'2026-11-27T23:34:02.711675Z','alias.rollback','{"alias":"champion","digest":"e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a","evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"slow","revision":3,"version":1}');
INSERT INTO "outbox" VALUES(12,'2026-11-27T23:34:02.734483Z','alias.promote','{"alias":"shadow","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","evaluation":"5141e30546537debe6dd90e80050260f7809b32806a02e7a293061408bf81015","gate":{"champion_evaluation":null,"checks":[{"bound":100,"name":"task_rows","passed":true,"reason":null,"value":128},{"bound":0.1,"name":"task_delta","passed":true,"reason":null,"value":0.3},{"bound":0.0,"name":"task_interval","passed":true,"reason":null,"value":0.25},{"bound":1,"name":"suites","passed":true,"reason":null,"value":1},{"bound":-0.05,"name":"suite:grammar","passed":true,"reason":null,"value":-0.01}],"passed":true,"policy":{"max_champion_loss":0.0,"max_suite_drop":0.05,"min_rows":100,"min_suites":1,"min_task_delta":0.1,"require_champion_comparison":false,"require_evaluation":true,"required_approvals":0,"task_interval_excludes_zero":true},"policy_from":"caller","reasons":[]},"name":"text2sql","previous_digest":null,"reason":null,"revision":1,"version":2}');
INSERT INTO "outbox" VALUES(13,'2026-11-27T23:34:02.736849Z','alias.demote','{"alias":"shadow","digest":null,"evaluation":null,"gate":null,"name":"text2sql","previous_digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","reason":"never used – 没用","revision":2,"version":null}');
INSERT INTO "outbox" VALUES(14,'2026-11-27T23:34:02.740998Z','version.deprecate','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"loses – 差","version":3}');
INSERT INTO "outbox" VALUES(15,'2026-11-27T23:34:02.749230Z','version.restore','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"a second look","version":3}');
INSERT INTO "outbox" VALUES(16,'2026-11-27T23:34:02.755054Z','version.retire','{"digest":"4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398","name":"text2sql","reason":"no use","version":3}');
INSERT INTO "outbox" VALUES(17,'2026-11-27T23:34:02.764427Z','alias.protect','{"alias":"released","approvals":[],"name":"text2sql","reason":"customers – 客户","required":2,"self_approval":false}');
INSERT INTO "outbox" VALUES(18,'2026-11-27T23:34:02.770987Z','alias.approve','{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":"looked at it – 好","version":2}');
INSERT INTO "outbox" VALUES(19,'2026-11-27T23:34:02.781111Z','alias.approve','{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":null,"version":2}');
INSERT INTO "outbox" VALUES(20,'2026-11-27T23:34:02.786726Z','alias.withdraw','{"act":"promote","alias":"released","digest":"e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36","matter":"6b058975e8e5569ccaa374c0ce7f70ecba314d67e6320a06752b0f25034b39e5","name":"text2sql","reason":"not yet","version":2}');
CREATE TABLE protections (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR(128) NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	required INTEGER NOT NULL, 
	self_approval INTEGER NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	reason TEXT NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT ck_protections_required CHECK (required >= 0), 
	CONSTRAINT ck_protections_self_approval CHECK (self_approval IN (0, 1))
);
INSERT INTO "protections" VALUES(1,'text2sql','released',2,0,'ada','customers – 客户','2026-11-27T23:34:02.764427Z');
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
INSERT INTO "runs" VALUES(1,'text2sql','sweep',0,'94dc74b3ea8d3422000ae0d60a6d5c0a9a57018a89123d799adea1c6f4844ce7','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2','key-1','{"data":{},"name":"text2sql","number":0,"summary":"rank 4","sweep":"sweep"}','2026-11-27T23:34:02.725972Z');
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
INSERT INTO "version_events" VALUES(1,4,'deprecate','bob','loses – 差','2026-11-27T23:34:02.740998Z');
INSERT INTO "version_events" VALUES(2,4,'restore','ada','a second look','2026-11-27T23:34:02.749230Z');
INSERT INTO "version_events" VALUES(3,4,'retire','bob','no use','2026-11-27T23:34:02.755054Z');
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
INSERT INTO "versions" VALUES(1,'tiny',1,'a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6','base','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2',NULL,'{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":null,"data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"faa207d55de7950deae1d714ba59b8721a35a7813420f6aebfbf0def2ecafd6c","size":16}},"flow_run_id":null,"format":1,"kind":"base","library_versions":{},"licence":null,"metadata":{},"parents":[],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}','2026-11-27T23:34:02.034144Z');
INSERT INTO "versions" VALUES(2,'text2sql',1,'e3f7c51c7f38cc63c00969459f09ac38928361b5b424609925c06787722c016a','adapter','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2','key-1','{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-1","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"af43165b6d4227c4e71ca1c9b18a9b8fe135b6f66c1208a975cd12b7134a979f","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}','2026-11-27T23:34:02.135116Z');
INSERT INTO "versions" VALUES(3,'text2sql',2,'e85cf24d04d3cabecb60c1ba37d365f9a9c6634cf0b768030037a421ce1a6a36','adapter','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2','key-2','{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-2","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"ae004fa4bb811221134fa48305004b172c6f0148cb19f809e68f7006fee97ba7","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}','2026-11-27T23:34:02.247007Z');
INSERT INTO "versions" VALUES(4,'text2sql',3,'4359792a8dcecadb4a9e0752b04ae20ad827fcca156581a3d9d06314a602b398','adapter','cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2','key-3','{"base_fingerprint":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","code_revision":null,"content_key":"key-3","data_digests":{},"decision_digest":null,"files":{"config.json":{"sha256":"0ad04ce2a9d6044907608e09fd5967562f8da728a3c2969a37a58f7602b59689","size":21}},"flow_run_id":null,"format":1,"kind":"adapter","library_versions":{},"licence":null,"metadata":{"note":"naïve – 模型 %s ?"},"parents":[{"digest":"a8e810110084a4a0866765177e370f07b1e1fa069349b15c42ddbe8813a7d8f6","role":"base","weight":null}],"peft_config":null,"plan_digest":null,"quantization":null,"seed":null,"template_digest":null,"tokenizer_digest":null}','2026-11-27T23:34:02.355062Z');
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
CREATE INDEX ix_protections_alias ON protections (name, alias, id);
CREATE INDEX ix_approvals_alias ON approvals (name, alias, id);
CREATE INDEX ix_approvals_digest ON approvals (digest, actor, id);
CREATE INDEX ix_audit_subject ON audit (action, subject);
CREATE TRIGGER protections_no_update BEFORE UPDATE ON protections BEGIN SELECT RAISE(ABORT, 'protections is insert-only'); END;
CREATE TRIGGER protections_no_delete BEFORE DELETE ON protections BEGIN SELECT RAISE(ABORT, 'protections is insert-only'); END;
CREATE TRIGGER protections_no_replace BEFORE INSERT ON protections WHEN EXISTS (SELECT 1 FROM protections WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'protections is insert-only: this key is taken'); END;
CREATE TRIGGER approvals_no_update BEFORE UPDATE ON approvals BEGIN SELECT RAISE(ABORT, 'approvals is insert-only'); END;
CREATE TRIGGER approvals_no_delete BEFORE DELETE ON approvals BEGIN SELECT RAISE(ABORT, 'approvals is insert-only'); END;
CREATE TRIGGER approvals_no_replace BEFORE INSERT ON approvals WHEN EXISTS (SELECT 1 FROM approvals WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'approvals is insert-only: this key is taken'); END;
CREATE TRIGGER approvals_own_rows BEFORE INSERT ON approvals WHEN (NEW.version_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM versions WHERE id = NEW.version_id AND name = NEW.name)) OR (NEW.evaluation_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM evaluations WHERE id = NEW.evaluation_id AND version_id = NEW.version_id)) BEGIN SELECT RAISE(ABORT, 'approvals: the version is not one of this model, or the evaluation not its own'); END;
CREATE TRIGGER approvals_steps BEFORE INSERT ON approvals WHEN coalesce((SELECT action FROM approvals WHERE digest = NEW.digest AND actor = NEW.actor ORDER BY id DESC LIMIT 1), 'withdraw') = NEW.action BEGIN SELECT RAISE(ABORT, 'approvals: it stands already, or there is none to withdraw'); END;
CREATE TRIGGER protections_lifted BEFORE INSERT ON protections WHEN (NEW.required < coalesce((SELECT p.required FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 0) OR (NEW.required > 0 AND NEW.self_approval > coalesce((SELECT p.self_approval FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 1))) AND (SELECT count(DISTINCT a.actor) FROM approvals a WHERE a.name = NEW.name AND a.alias = NEW.alias AND a.action = 'approve' AND a.act = 'unprotect' AND a.revision = (SELECT p.id FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1) AND a.required = NEW.required AND a.self_approval = NEW.self_approval AND NOT EXISTS (SELECT 1 FROM approvals w WHERE w.digest = a.digest AND w.actor = a.actor AND w.id > a.id)) < coalesce((SELECT p.required FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 0) BEGIN SELECT RAISE(ABORT, 'protections: approvals are missing to weaken this one'); END;
CREATE TRIGGER alias_events_approved BEFORE INSERT ON alias_events WHEN (SELECT count(DISTINCT a.actor) FROM approvals a WHERE a.name = NEW.name AND a.alias = NEW.alias AND a.action = 'approve' AND a.act = CASE WHEN NEW.version_id IS NULL THEN 'demote' ELSE 'promote' END AND a.version_id = coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1)) AND a.revision = coalesce((SELECT max(coalesce(l.revision, e.revision)) FROM alias_events e LEFT JOIN alias_events l ON l.name = e.name AND l.alias = e.alias AND l.revision = e.revision + 1 WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.version_id = coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1))), 0) AND NOT (a.evaluation_id IS NOT (SELECT max(v.id) FROM evaluations v WHERE v.version_id = coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1)))) AND ((SELECT p.self_approval FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1) = 1 OR NOT EXISTS (SELECT 1 FROM audit r JOIN versions o ON r.action = 'register' AND r.subject = o.name || ':' || 'v' || o.number WHERE o.id = a.version_id AND r.actor = a.actor)) AND NOT EXISTS (SELECT 1 FROM approvals w WHERE w.digest = a.digest AND w.actor = a.actor AND w.id > a.id)) < coalesce((SELECT p.required FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1), 0) BEGIN SELECT RAISE(ABORT, 'alias_events: the alias is protected, and approvals are missing'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('versions',4);
INSERT INTO "sqlite_sequence" VALUES('outbox',20);
INSERT INTO "sqlite_sequence" VALUES('version_parents',3);
INSERT INTO "sqlite_sequence" VALUES('evaluations',3);
INSERT INTO "sqlite_sequence" VALUES('alias_events',6);
INSERT INTO "sqlite_sequence" VALUES('runs',1);
INSERT INTO "sqlite_sequence" VALUES('version_events',3);
INSERT INTO "sqlite_sequence" VALUES('protections',1);
INSERT INTO "sqlite_sequence" VALUES('approvals',3);
COMMIT;
