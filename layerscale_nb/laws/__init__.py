"What follows for networks nobody trained?"
