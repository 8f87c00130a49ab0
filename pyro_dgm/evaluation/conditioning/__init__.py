"""What do some dims say of the others? Imputation and conditional likelihood."""
