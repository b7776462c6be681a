"""The commands of stage two, a module each; a command imports what is heavy only when it runs."""
