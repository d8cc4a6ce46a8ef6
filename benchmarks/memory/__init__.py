"""The memory plan against measurement, against other estimates, and against published figures."""
