"""What proposes a step's drafts: drafters, trees, and what a step costs."""
