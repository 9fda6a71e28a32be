"""Speech recognition: the interface of recognisers, Whisper behind it, and how a bundle is made of packages."""
