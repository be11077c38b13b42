"""What pdd-net is compared with: trained networks of our own making, and other programs."""
