"""Jobs of many images on several machines: blocks through workers of Ray, shards, one merged result."""
