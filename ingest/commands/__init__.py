"""The commands of stage one, a module each; a command imports what is heavy only when it runs."""
