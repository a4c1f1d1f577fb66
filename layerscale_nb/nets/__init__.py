"What is a network, and what does it cost?"
