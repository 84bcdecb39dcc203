"""What makes the answers: queues, batches, threads with a model, the cache and the index."""
