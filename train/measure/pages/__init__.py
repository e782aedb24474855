"""An evaluation as a page of tables and as figures."""
