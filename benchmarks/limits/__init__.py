"""Does it hold: over long runs, through kills, on real reads and on other projects' test files?"""
