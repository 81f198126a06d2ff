"""Images of flowers and impostors, put together from scikit-learn's two photographs.

On a piece of china.jpg lie the dahlia of flower.jpg, none to two times, and impostors:
the dahlia's outline, filled with other pieces of the photographs. Each is turned,
scaled and has its colours shuffled, so that neither colour nor outline tells a flower
from an impostor; its petals must.

Training and test take backgrounds and impostors from different parts of the
photographs. The dahlia is the same: this is about finding it among other things.

segment_flowers.py learns from them; to have a look at some:

    pip install '.[cpu,demo]'
    python examples/flower_images.py flowers.png
"""

import sys

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy import ndimage
from sklearn.datasets import load_sample_image


def cut_out_flower():
    """Returns the dahlia as an RGBA image, and flower.jpg as an array.

    What is redder than green, by Otsu's threshold, is petals; the largest piece without
    its holes is the flower.

    Source: Otsu: A threshold selection method from gray-level histograms, 1979.
    """
    photograph = load_sample_image("flower.jpg")
    redness = photograph[..., 0].astype(float) - photograph[..., 1]
    counts, edges = np.histogram(redness, 256)
    below, sums = np.cumsum(counts), np.cumsum(counts * edges[1:])
    above, rest = below[-1] - below[:-1], sums[-1] - sums[:-1]
    below, sums = below[:-1], sums[:-1]
    # The threshold that sets the means of both sides the farthest apart.
    between = below * above * (sums / below - rest / above) ** 2
    pieces, _ = ndimage.label(redness > edges[1:][np.argmax(between)])
    mask = pieces == np.argmax(np.bincount(pieces.flat)[1:]) + 1
    mask = ndimage.binary_closing(mask, iterations=5)
    mask = ndimage.binary_opening(ndimage.binary_fill_holes(mask), iterations=5)
    (box,) = ndimage.find_objects(mask.astype(int))
    rgba = np.dstack([photograph, mask.astype("uint8") * 255])[box]
    return Image.fromarray(rgba), photograph


class Composer:
    """Puts images together from pieces of the photographs.

    Args:
        size: Integer, height and width of the images.
        part: "train" or "test", the part of the photographs that is used.
        seed: Integer.
    """

    def __init__(self, size, part, seed):
        self.size = size
        self.random = np.random.default_rng([seed, part == "test"])
        flower, behind = cut_out_flower()
        # Larger than it will be: scaling the rest of the way costs less.
        self.flower = flower.resize((size, size), Image.Resampling.BOX)
        china = Image.fromarray(load_sample_image("china.jpg"))
        china = np.asarray(china.reduce(2))
        # A third of the pavilion is in the left third. The dahlia begins at column 168.
        third, flowerless = china.shape[1] // 3, behind[:, :160]
        half = flowerless.shape[0] // 2
        if part == "train":
            self.places = [china[:, third:], flowerless[:half]]
        else:
            self.places = [china[:, :third], flowerless[half:]]

    def crop(self, place, size):
        """Returns a random square of a photograph, `size` pixels wide afterwards."""
        height, width = place.shape[:2]
        side = int(self.random.uniform(0.3, 1) * min(height, width))
        top = self.random.integers(height - side + 1)
        left = self.random.integers(width - side + 1)
        piece = Image.fromarray(place[top : top + side, left : left + side])
        return self.recolour(piece.resize((size, size), Image.Resampling.BOX))

    def recolour(self, image):
        """Returns an image with its colours swapped and its brightness changed."""
        pixels = np.asarray(image).astype(float)
        colours = pixels[..., self.random.permutation(3)]
        colours *= self.random.uniform(0.6, 1.1, size=3)
        pixels[..., :3] = colours.clip(0, 255)
        return Image.fromarray(pixels.astype("uint8"))

    def make_object(self, is_flower):
        """Returns a flower or an impostor, an RGBA image of a random size and angle."""
        size = int(self.size * self.random.uniform(0.3, 0.7))
        flower = self.flower.resize((size, size), Image.Resampling.BOX)
        if is_flower:
            thing = self.recolour(flower.convert("RGB"))
        else:
            place = self.places[self.random.choice(2, p=(0.8, 0.2))]
            thing = self.crop(place, size)
        thing.putalpha(flower.getchannel("A"))
        angle = self.random.uniform(0, 360)
        return thing.rotate(angle, Image.Resampling.BILINEAR, expand=True)

    def compose(self):
        """Returns an image and the mask of its flowers."""
        image = self.crop(self.places[0], self.size)
        mask = Image.new("L", image.size)
        kinds = [True] * self.random.integers(3) + [False] * self.random.integers(1, 4)
        for is_flower in self.random.permutation(kinds):
            thing = self.make_object(is_flower)
            # Some stand out of the image.
            corner = self.random.integers(self.size, size=2) - thing.width // 2
            box = tuple(map(int, corner))
            alpha = thing.getchannel("A")
            image.paste(thing, box, alpha)
            mask.paste(255 * int(is_flower), box, alpha)
        return np.asarray(image), np.asarray(mask) >= 128

    def compose_many(self, count, description):
        """Returns images (count, size, size, 3), 0 to 1, and masks with one channel."""
        steps = track(
            range(count), description, console=Console(stderr=True), transient=True
        )
        images, masks = zip(*(self.compose() for _ in steps), strict=True)
        images = np.stack(images).astype("float32") / 255
        return images, np.stack(masks)[..., np.newaxis].astype("float32")


def main():
    """Writes six rows of twelve images into the file that is named."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python examples/flower_images.py FILE")
    images, _ = Composer(96, "train", 0).compose_many(72, "Composing")
    rows = np.concatenate(np.split(np.concatenate(images, axis=1), 6, axis=1))
    Image.fromarray((255 * rows).astype("uint8")).save(sys.argv[1])


if __name__ == "__main__":
    main()
