"What happens if I move this?"
