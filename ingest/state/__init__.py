"""What all instances know together of exporters: templates and options data, by way of the topic ``flows.exporters``."""
