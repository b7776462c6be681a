"""How fast it is: `make bench`, `make bench-quick` and `make profile`. Nothing here is collected by pytest."""
