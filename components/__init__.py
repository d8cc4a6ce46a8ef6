"""Plain functions that compute: data, decision, memory plan, finetuning, evaluation. No orchestration, no database."""
