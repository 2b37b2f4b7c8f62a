"""Hard-sample mining: signals, difficulty, buckets, and the queue for people."""
