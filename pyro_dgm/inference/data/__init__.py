"""The data of a run: tensors of any form, and batches of them."""
