"""How hooks is registered with Metacontroller, and a stand-in for Metacontroller on one machine."""
