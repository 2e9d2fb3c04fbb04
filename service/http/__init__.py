"""What every route shares, once each."""
