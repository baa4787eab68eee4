"""What is learnt by simulating: bootstrap, power, distributions of statistics."""
