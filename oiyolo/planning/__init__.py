"""What a run will fetch, store, take and cost: estimates, and how they compare with what came."""
