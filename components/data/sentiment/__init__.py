"""The sentiment data: fetch -> prepare as DVC stages, with labels to classify and with numbers to regress on."""
