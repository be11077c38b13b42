"""What `run_in_slicer.py` consists of; runs inside Slicer, where it uses nothing that Slicer does not bring."""
