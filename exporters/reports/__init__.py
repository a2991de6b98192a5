"""What a verification found, as text for other programs: JUnit XML, Markdown for a CI job, an in-toto attestation."""
