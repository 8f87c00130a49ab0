"""What is modelled: conditionals, flows, and the Pyro programs made of them."""
