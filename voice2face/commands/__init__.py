"""The commands that ``voice2face`` dispatches to, and what their command lines share."""
