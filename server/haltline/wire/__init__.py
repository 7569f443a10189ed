"""The Model Context Protocol on the wire, for both faces: strict JSON, who may connect, both eras, one reply a request."""
