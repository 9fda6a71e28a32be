"""Recordings for speech recognition: only how long they take, because the recogniser itself reads them."""
