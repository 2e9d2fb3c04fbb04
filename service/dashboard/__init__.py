"""The pages: dashboards, sign-in, links, errors. They need no build step and load nothing from elsewhere."""
