"""What the paper claims beyond its algorithm, a file per claim: functions that return numbers, and one that draws them.

`report.run_all` runs every one of them on small networks, and `report.CLAIMS` lists claim, function, figure and test.
"""
