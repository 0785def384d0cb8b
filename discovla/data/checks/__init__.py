"""What `discovla check` looks at: captions, videos, what is left out, and how a person reads it."""
