"""What stands where a machine would: time and turns (loop), a disk, a network."""
