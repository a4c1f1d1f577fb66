"How does a detector learn?"
