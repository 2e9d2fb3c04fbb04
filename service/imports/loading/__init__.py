"""SQL made from contracts, `checks` over landed text and `loads` over checked rows, and its run."""
