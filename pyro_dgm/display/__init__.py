"""How modules and results show themselves: settings when printed, tables when asked for."""
