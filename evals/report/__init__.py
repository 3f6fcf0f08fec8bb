"""The report of the evaluation, in Markdown, from the JSON files of the seeds."""
