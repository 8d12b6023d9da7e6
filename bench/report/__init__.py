"""Records → report.html, report.md, report.json."""
