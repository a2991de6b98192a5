"""A suite of attacks over images: stages, store, record, report; and the alarms that judge it."""
