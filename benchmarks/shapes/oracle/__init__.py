"""The oracle of generated pictures: it looks at pixels and has learned nothing.

`read_picture` finds out what a picture shows, and `grade` compares that with a prompt's scene, by
the palette and the outlines that the renderer draws with. Needs the extra ``bench``.
"""
