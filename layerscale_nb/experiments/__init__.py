"Where does each stored table come from?"
