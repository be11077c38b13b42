"""Other programs behind `Method`: each runs in processes of its own, on files, in a folder of its own."""
