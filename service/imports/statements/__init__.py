"""SQL made from contracts, in two halves: `checks` over landed text, `loads` over checked rows."""
