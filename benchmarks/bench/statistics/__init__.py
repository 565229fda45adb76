"""What scores of generated pictures conclude: win rates, leaderboards, intervals."""
