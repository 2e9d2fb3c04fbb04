"""Build SQL from the contracts (`checks`, `loads`) and run it (`pipeline`)."""
