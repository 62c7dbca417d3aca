"""What belongs to the network of `hanse up` alone.

every_unit  where all of the asset is, by holder and place
"""
