"Which one is better, and is it sure?"
