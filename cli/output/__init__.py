"""What is printed: the console, tables, reports and errors."""
