# Install rules, the exported target and the package configuration.
